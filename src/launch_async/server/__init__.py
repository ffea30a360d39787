"""The control plane: the part of W&B's API that we serve, and the rules behind it."""
