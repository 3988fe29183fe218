"""Start waiting Jobs, or refuse them: what the leader does with each remediation.

`decide` and `expiry` are pure and return a reason. The admitter carries out what `decide` chose,
the cleaner deletes what `expiry` names, `pause` reads the ConfigMap that pauses admission. Creating
Jobs belongs to `delivery`, electing the leader to `leadership`.
"""
