"""YAML from strangers to plain values, with positions, in bounded time and memory.

Pure. What the values mean is not known here.
"""
