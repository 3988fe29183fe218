"""Did it help: whether an alert went away after its remediation.

What is heard of an alert is written on its Jobs; the effect is a pure function of that and the
time, so that every replica comes to the same result. The leader settles it on the Job.
"""
