"""The HTTP API of an Alertmanager, to which alerts are sent; translates its errors.

Alerts that Alertmanager delivers to the webhook belong to `delivery`.
"""
