"""Prove which commit a remediation came from: remediations as a table, and each Job verified.

Pure functions over Jobs and catalogs; `commands/audit` reads the cluster and the repository.
"""
