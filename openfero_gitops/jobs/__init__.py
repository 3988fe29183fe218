"""A Job rendered, read back and changed.

All that the controller writes on a Job, and how it reads it. Pure, but for the view, which keeps
the remediations that the watch has shown.
"""
