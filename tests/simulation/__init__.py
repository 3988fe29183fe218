"""Three replicas of the real workers, in virtual time, under faults that a seed draws.

`python -m tests.simulation --seed N` plays one seed and tells its story.
"""
