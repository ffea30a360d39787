"""Kubernetes' words <-> our types: how to reach an API server, calls, watches and refusals."""
