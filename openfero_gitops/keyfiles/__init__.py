"""Reads files of credentials, keys and certificates, and checks their content.

Each kind of file has one function here, which is used wherever such a file is read, so that all
places tolerate the same and report the same causes. What a file is used for does not belong here.
"""
