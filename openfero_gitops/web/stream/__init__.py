"""The event stream: what changed in this replica, as server-sent events.

`changes` compares two observations of the replica and says what happened; `history` numbers and
encodes that; `publisher` observes; `streams` sends it to the clients. An event says only that
something changed. What it is now is read from the other paths of the API.
"""
