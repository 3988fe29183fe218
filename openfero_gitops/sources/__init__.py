"""Reads the files of a repository at one commit, from Git or from a folder.

The meaning of the files belongs to `catalog`.
"""
