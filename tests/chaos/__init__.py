"""Chaos: real replicas on a real API server, faults drawn from a seed, and a verdict."""
