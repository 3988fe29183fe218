"""From a webhook body to a Job: read the alerts, match, choose the attempt, submit.

Reading and matching are pure; the submitter creates the Jobs. Whether a Job starts is not decided
here (admission).
"""
