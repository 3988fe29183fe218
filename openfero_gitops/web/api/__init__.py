"""The read-only JSON API: its endpoints, their models, and the OpenAPI document made from these.

`*_shape` modules hold models of answers and the conversions to them, without a server: the command
line prints the same JSON. The other modules serve.
"""
