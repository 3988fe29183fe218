"""A Git repository as a source: fetching, resolving refs, verifying signatures, reading objects.

Repositories are bare and nothing is checked out. Every command is a process with a deadline.
"""
