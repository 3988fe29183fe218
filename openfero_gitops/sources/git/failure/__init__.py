"""What failed in a network operation of Git: one file for each transport, and one for its words.

Everything here is pure. What the transports log is parsed in `transport`; errors are raised and
worded in `errors`.
"""
