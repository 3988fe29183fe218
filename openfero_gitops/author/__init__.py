"""What authors of operarios use: explanations, golden cases, coverage of alerting rules.

Pure functions over a catalog; `diff` compares two catalogs, `report` formats problems. Nothing
here runs in the controller.
"""
