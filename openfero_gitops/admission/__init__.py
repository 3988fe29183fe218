"""Start waiting Jobs, or refuse them: what the leader does with each remediation.

`decide` and `expiry` are pure and return a reason. The admitter carries out what `decide` chose,
the cleaner deletes what `expiry` names, `pause` reads the ConfigMap that pauses admission, `queue`
reads why Kueue has not started a Job. Creating Jobs belongs to `delivery`, electing the leader to
`leadership`.
"""
