"""Keeps alerts in Alertmanager that notify people: approvals, failures, what does not help.

Which alerts must exist is a pure function of the Jobs; the leader's notifier sends them. HTTP
belongs to `alertmanager`, Kubernetes Events to `events`.
"""
