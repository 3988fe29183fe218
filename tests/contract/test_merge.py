"""Several writers merge members into one ConfigMap without touching each other's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.errors import Invalid

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import ApiServer

MEMBERS = {"paused": "true", "still-paused-by": ""}


@pytest.mark.parametrize("existing", [None, {}, {"data": {"sync": "a", "paused": "false"}}])
async def test_members_are_written_beside_others(
    api: ApiServer, ns: str, existing: dict[str, Any] | None
) -> None:
    """A merge keeps other members, and creates the ConfigMap if it does not exist."""
    store = ConfigMapStore(api, ns)
    if existing is not None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "control"},
            **existing,
        }
        assert await store.create(body)

    await store.merge("control", MEMBERS, {"owner": "test"})

    stored = await api.get(CONFIG_MAPS, ns, "control")
    assert stored["data"] == {**({"sync": "a"} if existing else {}), **MEMBERS}
    assert stored["metadata"].get("labels") == (None if existing is not None else {"owner": "test"})


async def test_immutable_config_map_is_an_error(api: ApiServer, ns: str) -> None:
    """A merge into an immutable ConfigMap raises an error and changes nothing."""
    store = ConfigMapStore(api, ns)
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "control"},
        "immutable": True,
        "data": {"sync": "a"},
    }
    assert await store.create(body)

    with pytest.raises(Invalid):
        await store.merge("control", MEMBERS, {})

    assert (await api.get(CONFIG_MAPS, ns, "control"))["data"] == {"sync": "a"}
