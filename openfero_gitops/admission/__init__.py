"""Start waiting Jobs, or refuse them: what the leader does with each remediation.

`decide` and `expiry` are pure and say why. The admitter sends what `decide` chose, the cleaner
deletes what `expiry` names, `pause` follows the ConfigMap that stops admission. Nothing here
creates a Job (delivery) or elects the leader (leadership).
"""
