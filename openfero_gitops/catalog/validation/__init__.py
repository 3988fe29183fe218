"""Is a Job correct, and safe to run? Every rule, its text and its reason.

Pure: a document goes in, findings come out. Reading YAML is `catalog/yaml`; which document is an
operario is `catalog/forms`.
"""
