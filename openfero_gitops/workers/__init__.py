"""The long-lived coroutines; each names the Protocols it needs."""
