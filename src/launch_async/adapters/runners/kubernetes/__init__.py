"""Runs on Kubernetes: Jobs, Pods and kinds that the cluster learned, followed by watches."""
