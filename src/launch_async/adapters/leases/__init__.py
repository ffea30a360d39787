"""What says which of several agents with one identity acts."""
