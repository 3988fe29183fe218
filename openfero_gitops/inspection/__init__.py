"""Answers to questions of operators, from what the API server has: `status` and `trace`.

Pure functions from Jobs, Pods, Events and ConfigMaps to values, and those as text and JSON; the
modules of `commands` read the cluster.
"""
