"""Checks whether a Job is valid and safe to run: the schemas and the rules.

Pure: a document goes in, findings come out. Parsing YAML belongs in `catalog/yaml`; whether a
document is an operario is decided in `catalog/forms`.
"""
