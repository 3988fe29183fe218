"""What the API server rejects in a single field, judged by its value alone.

A table maps fields to judges. A Job is traversed along the fields of the table that it has, so
fields that are not set cost nothing. Checks that need two fields are in the other modules. What
only some versions of Kubernetes reject is in the tables of `versions`.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import SPEC
from openfero_gitops.catalog.validation.checks.job import OUT_OF_RANGE
from openfero_gitops.catalog.validation.checks.volumes import is_relative
from openfero_gitops.catalog.validation.rules import Breach, Suggestion, check, kubernetes_error
from openfero_gitops.domain.dns import (
    is_dns_label,
    is_dns_subdomain,
    is_label_value,
    is_qualified_name,
)
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.rule import error
from openfero_gitops.domain.text import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Pointer, Rule

    # From a value to a message and a suggestion, or to None if the value is valid.
    Judge = Callable[[Any], tuple[str, Suggestion] | None]

REQUIRED_FIELD: Final = kubernetes_error(
    "required-field", "A field that Kubernetes requires must be set."
)
NOT_ONE_OF: Final = error(
    "not-one-of",
    "A field with a fixed set of values must have one of them.",
    "Kubernetes compares these values case-sensitively and rejects a Job with any other value.",
)
FIELD_FORMAT: Final = kubernetes_error(
    "field-format", "A name, key, address, path or time must have a valid format."
)
_MAX_DRIVER_CHARACTERS: Final = 63


def _required(value: Any) -> tuple[str, str] | None:
    return None if value else ("must not be empty", "write a value, or delete the object around it")


def _one_of(*words: str) -> Judge:
    """Accept only these words; the empty word is accepted but not suggested."""

    def judge(value: Any) -> tuple[str, Suggestion] | None:
        if value in words:
            return None
        choices = [word for word in words if word]
        message = f"must be one of {', '.join(choices)}, not {shown(value)}"
        return message, functools.partial(did_you_mean, value, choices)

    return judge


def _format(is_valid: Callable[[Any], bool], name: str, suggestion: str) -> Judge:
    """Accept only values of a format, which has a name with its article."""

    def judge(value: Any) -> tuple[str, str] | None:
        return None if is_valid(value) else (f"{shown(value)} is not {name}", suggestion)

    return judge


def _between(least: int, most: int) -> Judge:
    def judge(value: Any) -> tuple[str, str] | None:
        if least <= value <= most:
            return None
        return f"must be from {least} to {most}, but is {value}", f"write {least} to {most}"

    return judge


def _at_most(most: int, noun: str) -> Judge:
    def judge(value: Any) -> tuple[str, str] | None:
        if len(value) <= most:
            return None
        return f"must have at most {most} {noun}, but has {len(value)}", "delete some of them"

    return judge


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def _optional(is_valid: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: not text or is_valid(text)


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    is_plain = address.version == 4 or (not address.scope_id and not address.ipv4_mapped)  # noqa: PLR2004
    return is_plain and text.isascii()


def _is_time(text: str) -> bool:
    try:
        return _MATCHES_TIME(text) and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def _is_quantity(value: str | float) -> bool:
    try:
        return parse_quantity(value) is not None
    except ValueError:
        return False


def _is_search_domain(text: str) -> bool:
    return text == "." or is_dns_subdomain(text.removesuffix(".").replace("_", "-"))


def _is_driver(text: str) -> bool:
    return len(text) <= _MAX_DRIVER_CHARACTERS and is_dns_subdomain(text.lower())


def _are_labels(labels: dict[str, str]) -> bool:
    return all(is_qualified_name(key) and is_label_value(text) for key, text in labels.items())


_MATCHES_TIME: Final = _matches(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_IS_HEADER_NAME: Final = _matches(r"[-A-Za-z0-9]+")
_IS_SYSCTL: Final = _matches(
    r"(?=.{1,253}$)([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
)
_IS_ISCSI_NAME: Final = _matches(
    r"iqn\.[0-9]{4}-[0-9]{2}\.[A-Za-z0-9.-]+:[^,;*&$|\s]+"
    r"|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{32}"
)
_IS_WINDOWS_USER: Final = _matches(
    r'([^\x00-\x1f\x7f\\]{1,255}\\)?(?![. ]+$)[^\x00-\x1f\x7f"/\\:;|=,+*?<>@\[\]]{1,104}'
)

_SUBDOMAIN: Final = "write at most 253 lower-case letters, digits, - and ."

# `[]` is any item of a list, `*` any member of a mapping. For the abbreviations see _PREFIXES:
# POD. is the Pod, C. its containers of both kinds (MAIN. and INIT. one of them), V. its volumes,
# CLAIM. the claim template of a volume, TERM. an affinity term about other Pods.
_TABLE: Final[tuple[tuple[Rule, Judge, str], ...]] = (
    (
        REQUIRED_FIELD,
        _required,
        """
        C.volumeDevices[].devicePath C.securityContext.windowsOptions.gmsaCredentialSpec
        POD.securityContext.windowsOptions.gmsaCredentialSpec
        POD.os.name POD.runtimeClassName
        V.nfs.server V.iscsi.targetPortal V.image.reference
        V.projected.sources[].serviceAccountToken.path
        V.awsElasticBlockStore.volumeID V.azureDisk.diskName V.azureDisk.diskURI
        V.azureFile.secretName V.azureFile.shareName V.cephfs.monitors V.cinder.volumeID
        V.flexVolume.driver V.gcePersistentDisk.pdName V.gitRepo.repository V.glusterfs.endpoints
        V.glusterfs.path V.photonPersistentDisk.pdID V.portworxVolume.volumeID V.quobyte.registry
        V.quobyte.volume V.rbd.image V.rbd.monitors V.scaleIO.gateway V.scaleIO.system
        V.scaleIO.volumeName V.vsphereVolume.volumePath
        """,
    ),
    (NOT_ONE_OF, _one_of("cpu", "memory"), "C.resizePolicy[].resourceName"),
    (NOT_ONE_OF, _one_of("NotRequired", "RestartContainer"), "C.resizePolicy[].restartPolicy"),
    (NOT_ONE_OF, _one_of("Restart", "RestartAllContainers"), "C.restartPolicyRules[].action"),
    (NOT_ONE_OF, _one_of("In", "NotIn"), "C.restartPolicyRules[].exitCodes.operator"),
    (
        NOT_ONE_OF,
        _one_of("Disabled", "IfPossible", "Enabled"),
        "C.volumeMounts[].recursiveReadOnly",
    ),
    (
        NOT_ONE_OF,
        _one_of("v1", ""),
        """
        C.env[].valueFrom.fieldRef.apiVersion V.downwardAPI.items[].fieldRef.apiVersion
        V.projected.sources[].downwardAPI.items[].fieldRef.apiVersion
        """,
    ),
    (NOT_ONE_OF, _one_of("linux", "windows", ""), "POD.os.name"),
    (NOT_ONE_OF, _one_of("Recursive", "MountOption"), "POD.securityContext.seLinuxChangePolicy"),
    (
        FIELD_FORMAT,
        _format(is_dns_label, "a DNS label", "write at most 63 lower-case letters, digits and -"),
        """
        POD.resourceClaims[].name
        TERM.namespaces[]
        """,
    ),
    (
        FIELD_FORMAT,
        _format(
            _optional(is_dns_label), "a request name", "write lower-case letters, digits and -"
        ),
        "C.resources.claims[].request",
    ),
    (
        FIELD_FORMAT,
        _format(is_dns_subdomain, "a valid name", _SUBDOMAIN),
        """
        POD.hostAliases[].hostnames[] POD.hostnameOverride
        POD.resourceClaims[].resourceClaimName POD.resourceClaims[].resourceClaimTemplateName
        POD.securityContext.windowsOptions.gmsaCredentialSpecName
        C.securityContext.windowsOptions.gmsaCredentialSpecName
        """,
    ),
    (
        FIELD_FORMAT,
        _format(_optional(is_dns_subdomain), "a valid name", _SUBDOMAIN),
        """
        CLAIM.spec.storageClassName CLAIM.spec.volumeAttributesClassName
        V.csi.nodePublishSecretRef.name
        """,
    ),
    (
        FIELD_FORMAT,
        _format(is_qualified_name, "a valid key", "write name or domain/name"),
        """
        podFailurePolicy.rules[].onPodConditions[].type POD.readinessGates[].conditionType
        POD.schedulingGates[].name
        """,
    ),
    (
        FIELD_FORMAT,
        _format(_is_address, "an IP address", "for example 10.0.0.7 or 2001:db8::7"),
        "POD.dnsConfig.nameservers[] POD.hostAliases[].ip",
    ),
    (
        FIELD_FORMAT,
        _format(_is_search_domain, "a search domain", "for example svc.cluster.local"),
        "POD.dnsConfig.searches[]",
    ),
    (
        FIELD_FORMAT,
        _format(_IS_HEADER_NAME, "an HTTP header name", "write letters, digits and -"),
        """
        C.livenessProbe.httpGet.httpHeaders[].name C.readinessProbe.httpGet.httpHeaders[].name
        C.startupProbe.httpGet.httpHeaders[].name C.lifecycle.postStart.httpGet.httpHeaders[].name
        C.lifecycle.preStop.httpGet.httpHeaders[].name
        """,
    ),
    (
        FIELD_FORMAT,
        _format(is_relative, "a relative path", "write a path without leading / and without .."),
        """
        POD.securityContext.seccompProfile.localhostProfile
        C.securityContext.seccompProfile.localhostProfile
        """,
    ),
    (
        FIELD_FORMAT,
        _format(_IS_SYSCTL, "a sysctl name", "for example net.core.somaxconn"),
        "POD.securityContext.sysctls[].name",
    ),
    (
        FIELD_FORMAT,
        _format(_IS_WINDOWS_USER, "a Windows user name", "write NAME or DOMAIN\\NAME"),
        """
        POD.securityContext.windowsOptions.runAsUserName
        C.securityContext.windowsOptions.runAsUserName
        """,
    ),
    (
        FIELD_FORMAT,
        _format(lambda path: path.startswith("/"), "an absolute path", "begin it with /"),
        "V.nfs.path",
    ),
    (
        FIELD_FORMAT,
        _format(_IS_ISCSI_NAME, "an iSCSI name", "for example iqn.2001-04.com.example:storage"),
        "V.iscsi.iqn V.iscsi.initiatorName",
    ),
    (
        FIELD_FORMAT,
        _format(_is_driver, "a driver name", "for example csi.example.com"),
        "V.csi.driver",
    ),
    (
        FIELD_FORMAT,
        _format(_is_quantity, "a quantity", "for example 500m, 0.5, 64Mi or 1Gi"),
        """
        C.env[].valueFrom.resourceFieldRef.divisor V.downwardAPI.items[].resourceFieldRef.divisor
        V.projected.sources[].downwardAPI.items[].resourceFieldRef.divisor
        CLAIM.spec.resources.requests.* CLAIM.spec.resources.limits.* POD.overhead.*
        """,
    ),
    (
        FIELD_FORMAT,
        _format(_is_time, "a time", "delete it: Kubernetes sets it"),
        """
        template.metadata.creationTimestamp template.metadata.deletionTimestamp
        CLAIM.metadata.creationTimestamp CLAIM.metadata.deletionTimestamp
        """,
    ),
    (
        FIELD_FORMAT,
        _format(_are_labels, "a valid set of labels", "write keys as name or domain/name"),
        "CLAIM.metadata.labels",
    ),
    (OUT_OF_RANGE, _between(0, 2**31 - 1), "POD.securityContext.supplementalGroups[]"),
    (OUT_OF_RANGE, _between(0, 255), "V.iscsi.lun V.fc.lun"),
    (OUT_OF_RANGE, _between(0, 0o777), "V.projected.defaultMode"),
    (OUT_OF_RANGE, _at_most(3, "items"), "POD.dnsConfig.nameservers"),
    (OUT_OF_RANGE, _at_most(32, "items"), "POD.dnsConfig.searches"),
    (OUT_OF_RANGE, _at_most(64, "characters"), "POD.hostnameOverride"),
    (
        OUT_OF_RANGE,
        _at_most(20, "items"),
        "successPolicy.rules podFailurePolicy.rules[].onPodConditions C.restartPolicyRules",
    ),
)
_PREFIXES: Final = {
    "POD.": ("template.spec.",),
    "C.": ("template.spec.containers[].", "template.spec.initContainers[]."),
    "MAIN.": ("template.spec.containers[].",),
    "INIT.": ("template.spec.initContainers[].",),
    "V.": ("template.spec.volumes[].",),
    "TERM.": tuple(
        f"template.spec.affinity.{kind}.{term}."
        for kind in ("podAffinity", "podAntiAffinity")
        for term in (
            "requiredDuringSchedulingIgnoredDuringExecution[]",
            "preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm",
        )
    ),
    "CLAIM.": ("template.spec.volumes[].ephemeral.volumeClaimTemplate.",),
}


@dataclass(slots=True)
class Node:
    """A place in a Job: the judges of its value, and the places below it."""

    judges: list[Judge] = field(default_factory=list)
    below: dict[str, Node] = field(default_factory=dict)


def tree(rows: Iterable[tuple[Judge, str]]) -> Node:
    """The places that a table concerns: its rows have a judge and paths, separated by spaces."""
    root = Node()
    for judge, paths in rows:
        for path in paths.split():
            head, _, rest = path.partition(".")
            for prefix in _PREFIXES.get(f"{head}.", (f"{head}.",)):
                node = root
                for part in (prefix + rest).rstrip(".").replace("[]", ".[]").split("."):
                    node = node.below.setdefault(part, Node())
                node.judges.append(judge)
    return root


def breaches_in(places: Node, body: Body) -> Iterator[Breach]:
    """What the judges of a tree find in a Job."""
    breaches: list[Breach] = []
    _walk(places, body.spec, SPEC, breaches)
    return iter(breaches)


def _walk(node: Node, value: Any, pointer: Pointer, breaches: list[Breach]) -> None:
    for judge in node.judges:
        if verdict := judge(value):
            message, suggestion = verdict
            breaches.append((pointer, f"{_field(pointer)}: {message}", suggestion))
    below = node.below
    if not below:
        return
    if (items := below.get("[]")) is not None:
        for index, item in enumerate(value):
            _walk(items, item, (*pointer, index), breaches)
    elif (members := below.get("*")) is not None:
        for key, member in value.items():
            _walk(members, member, (*pointer, key), breaches)
    else:
        for key, member in below.items():
            if key in value:
                _walk(member, value[key], (*pointer, key), breaches)


def _field(pointer: Pointer) -> str:
    return str(next(part for part in reversed(pointer) if isinstance(part, str)))


def _rows(rule: Rule) -> Iterator[tuple[Judge, str]]:
    return ((judge, paths) for of, judge, paths in _TABLE if of is rule)


for _rule in (REQUIRED_FIELD, NOT_ONE_OF, FIELD_FORMAT, OUT_OF_RANGE):
    check(_rule)(functools.partial(breaches_in, tree(_rows(_rule))))
