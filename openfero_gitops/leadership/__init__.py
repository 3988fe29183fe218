"""One leader through a Kubernetes Lease.

`election` is the pure protocol; the elector runs it and ends a term before anyone else can begin
one. What the leader does is handed in.
"""
