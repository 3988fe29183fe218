"""The Kubernetes API: one client, list and watch, and a small store for each kind of object.

Errors are translated to `domain/errors`. No decision is made here.
"""
