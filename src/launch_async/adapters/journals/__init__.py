"""Where the agent remembers its open items."""
