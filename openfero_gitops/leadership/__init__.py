"""One leader through a Kubernetes Lease.

`election` is the pure protocol. The elector follows it, runs the leader's work under a term, and
ends that term before another replica can lead. What the leader does is passed in.
"""
