"""The agent's admin endpoint: probes, metrics and a status for people. It changes nothing."""
