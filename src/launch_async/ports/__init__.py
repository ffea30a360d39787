"""What the agent needs of others: small Protocols, named for the caller's need."""
