"""A Git repository as a source: fetch, resolve, verify, read objects.

Bare, without checkout, each network operation a process that a deadline can end.
"""
