"""Members that several write into one ConfigMap, each leaving the others' alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.errors import Invalid

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import ApiServer

SAID = {"paused": "true", "still-paused-by": ""}


@pytest.mark.parametrize("there", [None, {}, {"data": {"sync": "a", "paused": "false"}}])
async def test_members_are_written_beside_others(
    api: ApiServer, ns: str, there: dict[str, Any] | None
) -> None:
    """Whether there is a ConfigMap with data, one without, or none, which is made then."""
    store = ConfigMapStore(api, ns)
    if there is not None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "control"}, **there}
        assert await store.create(body)

    await store.merge("control", SAID, {"who": "ours"})

    found = await api.get(CONFIG_MAPS, ns, "control")
    assert found["data"] == {**({"sync": "a"} if there else {}), **SAID}
    assert found["metadata"].get("labels") == (None if there is not None else {"who": "ours"})


async def test_what_cannot_be_changed_is_an_error(api: ApiServer, ns: str) -> None:
    """An immutable ConfigMap stays as it is, and whoever writes hears of it."""
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
        await store.merge("control", SAID, {})

    assert (await api.get(CONFIG_MAPS, ns, "control"))["data"] == {"sync": "a"}
