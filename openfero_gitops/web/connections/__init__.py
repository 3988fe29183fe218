"""Connections of clients: accepted within limits, and dropped when they keep the server waiting.

`table` counts them and decides; `acceptor` accepts, watches and closes them. Requests are the
business of the other modules of `web`.
"""
