"""Files of a repository at one commit, from Git or from a folder.

What the files mean is not known here.
"""
