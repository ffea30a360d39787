"""W&B's words <-> our types: the only place that knows the API's field names."""
