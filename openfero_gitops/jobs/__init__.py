"""A Job: rendered, parsed, compared and patched.

Everything that the controller writes to a Job or reads from one. Pure, except for the view, which
holds the remediations that the watch delivers.
"""
