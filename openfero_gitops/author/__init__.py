"""What authors of operarios read: explanations, golden cases, coverage of alert rules.

Pure functions over a catalog; `diff` compares two of them, `report` prints what was found.
Nothing here runs in the controller.
"""
