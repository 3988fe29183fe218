"""Kubernetes Events about decisions and phases.

`events` is pure: what is worth an Event, and its text. The announcer finds the changes, the
recorder writes the Events. No decision depends on an Event.
"""
