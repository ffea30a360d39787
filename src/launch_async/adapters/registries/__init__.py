"""Image registries, and where logins for them come from."""
