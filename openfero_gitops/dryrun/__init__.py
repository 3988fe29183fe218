"""Create every operario's Job with `dryRun=All`, and report what the cluster answers.

`trial` is pure: it makes the Jobs and interprets the answers. The runner sends the requests. Both
report problems and never change the catalog.
"""
