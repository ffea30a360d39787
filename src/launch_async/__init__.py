"""W&B Launch, open, fast and crash-safe: the agent and the control plane."""

__version__ = "0.1.0"
