"""From a webhook body to a Job: parse the alerts, match, choose the attempt, submit.

Parsing and matching are pure; the submitter creates the Jobs. When a Job starts is decided in
`admission`.
"""
