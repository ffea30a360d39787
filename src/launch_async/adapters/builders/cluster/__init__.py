"""Builds in a Kubernetes cluster: one Job for each image."""
