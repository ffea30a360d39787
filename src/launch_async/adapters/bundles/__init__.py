"""Places for post-mortem bundles."""
