"""Kubernetes Events about decisions and phases.

`events` is pure: what is worth an Event, and its text. The announcer notices, the recorder
writes.
"""
