"""The commands after parsing of arguments: open a source or a cluster, then call pure code.

Printing and exit codes belong to `cli`.
"""
