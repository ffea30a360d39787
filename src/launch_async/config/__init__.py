"""What a person may set: the model of launch-config.yaml, its loader, and the login."""
