"""Queue services that the agent can take items from."""
