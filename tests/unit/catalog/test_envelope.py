from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from openfero_gitops.catalog.envelope import read_envelope, says_paused
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.domain.catalog import Envelope, JobDefaults, Limits
from openfero_gitops.domain.operario import Mode
from openfero_gitops.domain.watchdog import Watchdog

WHOLE = """\
paused: true
mode: dry-run
limits:
  concurrent: 3
  perMinute: 0
namespaces: [jobs, payments]
remember: 1d12h
defaults:
  backoffLimit: 2
  activeDeadlineSeconds: 60
  podReplacementPolicy: TerminatingOrFailed
  ttlSecondsAfterFinished: 200000
watchdog:
  alertname: DeadMansSwitch
  within: 30m
"""


def read(text: str) -> Any:
    """Read the first document of a text."""
    documents = load(text.encode())
    return read_envelope(documents[0] if documents else None)


def test_every_key_is_read() -> None:
    """An envelope with all keys is read into its fields."""
    assert read(WHOLE) == (
        Envelope(
            paused=True,
            mode=Mode.DRY_RUN,
            limits=Limits(concurrent=3, per_minute=0),
            namespaces=("jobs", "payments"),
            remember=timedelta(days=1, hours=12),
            defaults=JobDefaults(
                backoff_limit=2,
                active_deadline_seconds=60,
                pod_replacement_policy="TerminatingOrFailed",
                ttl_seconds_after_finished=200_000,
            ),
            watchdog=Watchdog("DeadMansSwitch", timedelta(minutes=30)),
        ),
        [],
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}\n"])
def test_an_empty_envelope_is_all_defaults(text: str) -> None:
    """An empty envelope has the default limits."""
    assert read(text) == (Envelope(), [])


@pytest.mark.parametrize(
    ("text", "pointer", "rule", "words", "suggestion"),
    [
        ("pauzed: true", ("pauzed",), "envelope-key", 'no key "pauzed"', "did you mean paused?"),
        ("concurrent: 1", ("concurrent",), "envelope-key", "no key", "mean limits.concurrent?"),
        (
            "limits: {perHour: 1}",
            ("limits", "perHour"),
            "envelope-key",
            "limits has no key",
            "keys",
        ),
        ("paused: 1", ("paused",), "envelope-value", "true or false, not 1", "paused: true"),
        ("paused:", ("paused",), "envelope-value", "true or false, not null", "paused: true"),
        ("mode: off", ("mode",), "envelope-value", "one of run, dry-run", "mode: dry-run"),
        ("limits: 5", ("limits",), "envelope-value", "limits must be a mapping", "concurrent"),
        ("limits:", ("limits",), "envelope-value", "limits must be a mapping", "concurrent"),
        (
            "limits: {concurrent: -1}",
            ("limits", "concurrent"),
            "envelope-value",
            "an integer, 0 or more, not -1",
            "20",
        ),
        (
            "limits: {concurrent: true}",
            ("limits", "concurrent"),
            "envelope-value",
            "not true",
            "20",
        ),
        ("namespaces: []", ("namespaces",), "envelope-value", "a list of names", "openfero-jobs"),
        ("namespaces: jobs", ("namespaces",), "envelope-value", "a list of names", ""),
        ("namespaces: [Jobs]", ("namespaces",), "envelope-value", '"Jobs" is not a valid name', ""),
        (
            "remember: 3600",
            ("remember",),
            "envelope-value",
            "remember must be a duration with a unit, at most ten years, not 3600",
            "for example remember: 24h",
        ),
        ("remember: 11y", ("remember",), "envelope-value", 'at most ten years, not "11y"', "24h"),
        ("remember: 30s", ("remember",), "envelope-value", "a duration of 1m or more", "24h"),
        ("remember: 0", ("remember",), "envelope-value", "a duration of 1m or more", "24h"),
        (
            "defaults: {activeDeadlineSeconds: 0}",
            ("defaults", "activeDeadlineSeconds"),
            "envelope-value",
            "1 or more",
            "900",
        ),
        (
            "defaults: {podReplacementPolicy: Never}",
            ("defaults", "podReplacementPolicy"),
            "envelope-value",
            "one of Failed, TerminatingOrFailed",
            "Failed",
        ),
        ("watchdog: Watchdog", ("watchdog",), "envelope-value", "must be a mapping", "alertname"),
        ("watchdog: true", ("watchdog",), "envelope-value", "must be a mapping", "alertname"),
        ("within: 5m", ("within",), "envelope-key", "no key", "mean watchdog.within?"),
        (
            "watchdog: {alert: Watchdog}",
            ("watchdog", "alert"),
            "envelope-key",
            'watchdog has no key "alert"',
            "did you mean alertname?",
        ),
        (
            "watchdog: {within: 15}",
            ("watchdog", "within"),
            "envelope-value",
            "watchdog.within must be a duration with a unit",
            "for example within: 15m",
        ),
        (
            "watchdog: {within: 30s}",
            ("watchdog", "within"),
            "envelope-value",
            "a duration of 1m or more",
            "15m",
        ),
        (
            "watchdog: {alertname: ''}",
            ("watchdog", "alertname"),
            "envelope-value",
            "watchdog.alertname must be the name of an alert",
            "Watchdog",
        ),
        (
            "watchdog: {alertname: 'Watchdog '}",
            ("watchdog", "alertname"),
            "envelope-value",
            "without white space around it",
            "Watchdog",
        ),
        ("watchdog: {alertname: [a]}", ("watchdog", "alertname"), "envelope-value", "name", ""),
        (
            "- paused",
            (),
            "envelope-value",
            "openfero.yaml must be a mapping",
            "its keys are paused",
        ),
    ],
)
def test_an_unknown_key_or_wrong_value_is_an_error(
    text: str, pointer: tuple[str, ...], rule: str, words: str, suggestion: str
) -> None:
    """The error has the pointer of the key, and suggests a valid one."""
    _, findings = read(text)
    (finding,) = [finding for finding in findings if finding.is_error]
    assert (finding.pointer, finding.rule.id) == (pointer, rule)
    assert words in finding.message
    assert suggestion in finding.suggestion


def test_a_watchdog_without_keys_is_that_of_kube_prometheus() -> None:
    """Each key has a default; without `watchdog` there is none."""
    assert read("watchdog: {}")[0].watchdog == Watchdog("Watchdog", timedelta(minutes=15))
    assert read("paused: false")[0].watchdog is None


def test_all_findings_are_reported_at_once() -> None:
    """Three errors are three findings."""
    _, findings = read("pauzed: true\nlimits: {concurrent: x, perMinut: 1}\n")
    assert len(findings) == 3


def test_a_remember_below_the_repeat_interval_is_a_warning() -> None:
    """A remember below Alertmanager's default repeat_interval is a warning, not an error."""
    envelope, (finding,) = read("remember: 1h")
    assert envelope.remember == timedelta(hours=1)
    assert (finding.rule.id, finding.is_error) == ("short-remember", False)
    assert read("remember: 4h")[1] == []


def test_a_default_ttl_below_remember_is_a_warning() -> None:
    """A configured default TTL below remember is a warning; the built-in one is not."""
    _, (finding,) = read("defaults: {ttlSecondsAfterFinished: 60}")
    assert (finding.rule.id, finding.is_error) == ("ttl-below-remember", False)
    assert read("remember: 48h")[1] == []


@pytest.mark.parametrize(
    ("text", "paused"),
    [
        ("paused: true\nlimits: x", True),
        ('paused: "true"', True),
        ("paused: yes\nfoo: 1", True),
        ("a: 1\n---\npaused: true", True),
        ("paused: false\nfoo: 1", False),
        ("limits: {paused: true}", False),
        ("[paused]", False),
        ("a: [\npaused: true\n", True),
        ("a: [\npaused: on # since noon\r\n", True),
        ("a: [\n  paused: true\n", False),
        ("a: [\npaused: trueish\n", False),
        ("\xff\npaused: true\n", True),
    ],
)
def test_a_broken_envelope_still_pauses(text: str, *, paused: bool) -> None:
    """`paused: true` takes effect even in an envelope that cannot be parsed."""
    assert says_paused(text.encode("latin-1")) is paused
