"""Puts the parts together: the only place that knows both the flow and the vendors."""
