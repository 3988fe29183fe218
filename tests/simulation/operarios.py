"""The repository of one seed: operarios of every kind, with options drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import Envelope, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

NAMESPACES: Final = ("jobs", "other")


def draw_envelope(rng: Random) -> Envelope:
    """Draw limits that are met."""
    return Envelope(
        limits=Limits(concurrent=rng.choice((1, 2, 4, 20)), per_minute=rng.choice((2, 4, 60)))
    )


def envelope_file(envelope: Envelope) -> str:
    """It as `openfero.yaml`."""
    limits = envelope.limits
    return f"limits: {{concurrent: {limits.concurrent}, perMinute: {limits.per_minute}}}\n"


def draw_operarios(rng: Random) -> dict[str, str]:
    """Draw the files."""
    return {
        "crash.yaml": _job("crash-firing", rng, target="pod"),
        "crash-resolved.yaml": _job(
            "crash-resolved", rng, **{"target": "pod", "resolve-delay": "10s"}
        ),
        "disk.yaml": _job("disk-firing", rng, priority=5, approval="required"),
        "node.yaml": _job(
            "node-firing",
            rng,
            **{"target": "node", "on-resolve": "keep", "rerun-after": "20s", "max-runs": 2},
        ),
        "load.yaml": _job(
            "load-firing",
            rng,
            namespace="other",
            **{"target": "node", "on-resolve": "cancel-running"},
        ),
        "load-resolved.yaml": _job(
            "load-resolved", rng, namespace="other", **{"resolve-delay": "5s", "target": "node"}
        ),
        "queue.yaml": _job("queue-firing", rng, queue="batch", priority=1),
        "dry.yaml": _job("dry-firing", rng, mode="dry-run"),
    }


def with_effects(operarios: Mapping[str, str], rng: Random) -> dict[str, str]:
    """Add to each file of a firing alert when it should have healed, and when to stop."""
    return {
        path: text
        if "-resolved" in path
        else text.replace(
            "  annotations:\n",
            "  annotations:\n"
            f'    openfero.io/heals-within: "{rng.choice(("10s", "15s", "25s", "40s"))}"\n'
            f'    openfero.io/stop-after-not-healed: "{rng.choice((1, 1, 2, 3, "off"))}"\n',
        )
        for path, text in operarios.items()
    }


def changed(operario: str) -> str:
    """Return another version of a file: its Jobs run another image."""
    before, image, after = operario.partition("/heal:")
    number, line, after = after.partition("\n")
    return f"{before}{image}{int(number) + 1}{line}{after}"


def _job(name: str, rng: Random, namespace: str = "", queue: str = "", **given: object) -> str:
    options: Mapping[str, object] = {
        "cooldown": rng.choice(("0", "10s", "40s")),
        "max-wait": rng.choice(("60s", "120s")),
        "max-concurrent": rng.choice((1, 2, 5)),
        "max-per-hour": rng.choice((1, 4, 30, 30)),
    } | given
    lines = "\n".join(f'    openfero.io/{key}: "{value}"' for key, value in options.items())
    place = f"  namespace: {namespace}\n" if namespace else ""
    labels = f"  labels:\n    kueue.x-k8s.io/queue-name: {queue}\n" if queue else ""
    return f"""apiVersion: batch/v1
kind: Job
metadata:
  name: openfero-{name}
{place}{labels}  annotations:
{lines}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: heal
          image: registry.example/heal:1
          command: ["true"]
"""
