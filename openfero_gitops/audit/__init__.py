"""Prove which commit did what: remediations as a table, and each Job derived again from Git.

Pure functions over Jobs and catalogs; reading the cluster and the repository is the command's
part (`commands/audit`).
"""
