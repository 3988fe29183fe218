"""The Kubernetes API, as the rest of the code needs it.

One client, one list and watch, and one small store for each kind of object; every error is
translated to `domain/errors`. No decision is made here.
"""
