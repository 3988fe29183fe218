"""Self-healing from Git: alerts run reviewed Kubernetes Jobs, once, with their commit on them."""

__version__ = "0.1.0"
