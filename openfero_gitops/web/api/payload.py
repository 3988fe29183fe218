"""The model of a delivery, for the document.

Deliveries are read by `delivery.alertmanager`: faster, and without refusing a whole delivery
because of one alert.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class DeliveredAlert(BaseModel):
    """An alert."""

    model_config = ConfigDict(alias_generator=to_camel)

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    """Its labels; `alertname` is its name."""
    annotations: dict[str, str] | None = None
    starts_at: str | None = None
    """RFC 3339."""
    ends_at: str | None = None
    """RFC 3339; of a resolved alert, when it was resolved."""
    fingerprint: str | None = None


class DeliveryBody(BaseModel):
    """The payload of Alertmanager's webhook, version 4."""

    model_config = ConfigDict(alias_generator=to_camel)

    alerts: list[DeliveredAlert]
    group_key: str | None = None
    """The group in Alertmanager."""
    truncated_alerts: int | None = None
    """How many alerts Alertmanager left out, because of max_alerts."""
