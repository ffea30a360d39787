"""What a person or program uses to make jobs and queues, to push items and to follow runs."""
