"""Labels of an alert: which of them identify it, and how many labels need little memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.text import canonical_json

if TYPE_CHECKING:
    from collections.abc import Collection, ItemsView, Iterator, Sequence

#: External labels that name the sender, one member of a high-availability pair: of the Prometheus
#: Operator's Prometheus, of Cortex and Mimir, of the Prometheus Operator's ThanosRuler, and of
#: Thanos' ruler.
REPLICA_LABELS: Final = frozenset(
    {"prometheus_replica", "__replica__", "thanos_ruler_replica", "rule_replica"}
)

#: Of the names of all replica labels, as a JSON list: a Job records them in one annotation.
MAX_REPLICA_LABELS_CHARACTERS: Final = 1024

#: More labels than this, or longer ones, are kept as text.
_MAX_LABELS: Final = 32
_MAX_CHARACTERS: Final = 2048


def with_replica_labels(names: Collection[str]) -> frozenset[str]:
    """Add replica labels to the well-known ones.

    Raises:
        ValueError: a name cannot be a replica label, or there are too many.
    """
    if "alertname" in names:
        raise ValueError("alertname is not a replica label: it is the name of the alert")
    every = REPLICA_LABELS.union(names)
    if len(canonical_json(sorted(every))) > MAX_REPLICA_LABELS_CHARACTERS:
        raise ValueError(
            "the names of the replica labels have more than "
            f"{MAX_REPLICA_LABELS_CHARACTERS} characters"
        )
    return every


def replica_labels_in(labels: Mapping[str, str], names: frozenset[str]) -> tuple[str, ...]:
    """Return the replica labels that an alert has, sorted; `names` are all of them."""
    if names.isdisjoint(labels):
        return ()
    return tuple(sorted(names.intersection(labels)))


def without(labels: Mapping[str, str], names: Sequence[str]) -> Mapping[str, str]:
    """Return labels without some of them: equal for both members of a high-availability pair."""
    if not names:
        return labels
    return {name: value for name, value in labels.items() if name not in names}


def compact(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return equal labels; many or long ones are packed.

    A dict of short texts needs up to 25 times the memory of the texts.
    """
    few = len(labels) <= _MAX_LABELS
    if few and sum(map(len, labels)) + sum(map(len, labels.values())) <= _MAX_CHARACTERS:
        return labels
    return PackedLabels(labels)


class PackedLabels(Mapping[str, str]):
    """Labels that are kept as JSON, and unpacked at each access."""

    __slots__ = ("_text",)

    def __init__(self, labels: Mapping[str, str]) -> None:
        """Pack these labels; their texts must be valid Unicode."""
        self._text = json.dumps(dict(labels), ensure_ascii=False, separators=(",", ":")).encode()

    def __getitem__(self, name: str) -> str:
        """Return the value of a label."""
        return _unpacked(self._text)[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(_unpacked(self._text))

    def items(self) -> ItemsView[str, str]:
        """Return the names and values."""
        return _unpacked(self._text).items()

    def __len__(self) -> int:
        """Return the number of labels."""
        return len(_unpacked(self._text))


# A caller who reads one label after the other would unpack all of them each time.
@lru_cache(maxsize=8)
def _unpacked(text: bytes) -> dict[str, str]:
    labels: dict[str, str] = json.loads(text)
    return labels
