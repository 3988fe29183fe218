"""Try every operario in the cluster with `dryRun=All`, and report what the cluster says.

`trial` is pure and reads the answers; the runner sends the requests. It reports problems and
never changes the catalog.
"""
