"""Parses untrusted YAML and JSON into plain values with positions, in bounded time and memory.

Pure. The meaning of the values does not belong here: see `catalog.forms`.
"""
