"""What a command does once its arguments are read: open a source or a cluster, then call pure code.

Printing and exit codes belong to `cli`.
"""
