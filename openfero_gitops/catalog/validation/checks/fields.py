"""What the API server refuses in single fields: each judged by its own value alone.

A table says which; a Job is walked beside it, so that only what is there costs anything. What
needs two fields at once is a function of another module.
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
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.dns import (
    is_dns_label,
    is_dns_subdomain,
    is_label_value,
    is_qualified_name,
)
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Rule

    # A value to what is wrong with it and what to write instead, or to nothing.
    Judge = Callable[[Any], tuple[str, str] | None]

REQUIRED_FIELD: Final = error(
    "required-field",
    "A field that Kubernetes requires must be set.",
    API_SERVER_REJECTS,
)
NOT_ONE_OF: Final = error(
    "not-one-of",
    "A field with a fixed set of values must have one of them.",
    "Kubernetes compares these values case-sensitively and rejects a Job with any other value.",
)
FIELD_FORMAT: Final = error(
    "field-format",
    "A name, key, address, path or time must have a valid format.",
    API_SERVER_REJECTS,
)


def _required(value: Any) -> tuple[str, str] | None:
    return None if value else ("it is empty", "write it, or delete what it belongs to")


def _one_of(*words: str) -> Judge:
    def judge(value: Any) -> tuple[str, str] | None:
        if value in words:
            return None
        known = [word for word in words if word]
        return f"{shown(value)} is none of {', '.join(known)}", did_you_mean(value, known)

    return judge


def _form(fits: Callable[[Any], bool], what: str) -> Judge:
    """A text of some form."""

    def judge(value: Any) -> tuple[str, str] | None:
        return None if fits(value) else (f"{shown(value)} is no {what}", "")

    return judge


def _between(least: int, most: int) -> Judge:
    def judge(value: Any) -> tuple[str, str] | None:
        return None if least <= value <= most else (f"{value} is not from {least} to {most}", "")

    return judge


def _at_most(most: int) -> Judge:
    def judge(value: Any) -> tuple[str, str] | None:
        return None if len(value) <= most else (f"there are {len(value)}, more than {most}", "")

    return judge


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    is_plain = address.version == 4 or (not address.scope_id and not address.ipv4_mapped)  # noqa: PLR2004
    return is_plain and text.isascii()


def _is_time(text: str) -> bool:
    try:
        return _TIME(text) and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def _is_quantity(value: str | float) -> bool:
    try:
        return parse_quantity(value) is not None
    except ValueError:
        return False


def _is_below(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")


def _is_search(text: str) -> bool:
    return text == "." or is_dns_subdomain(text.removesuffix(".").replace("_", "-"))


def _is_driver(text: str) -> bool:
    return len(text) <= 63 and is_dns_subdomain(text.lower())  # noqa: PLR2004


def _are_labels(labels: dict[str, str]) -> bool:
    return all(is_qualified_name(key) and is_label_value(text) for key, text in labels.items())


_TIME: Final = _matches(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_HEADER: Final = _matches(r"[-A-Za-z0-9]+")
_SYSCTL: Final = _matches(
    r"(?=.{1,253}$)([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
)
_INITIATOR: Final = _matches(
    r"iqn\.[0-9]{4}-[0-9]{2}\.[A-Za-z0-9.-]+:[^,;*&$|\s]+"
    r"|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{32}"
)
_USER: Final = _matches(
    r'([^\x00-\x1f\x7f\\]{1,255}\\)?(?![. ]+$)[^\x00-\x1f\x7f"/\\:;|=,+*?<>@\[\]]{1,104}'
)

# `[]` is any item of a list, `*` any member of a mapping. POD. is the Pod, C. its containers of
# both kinds, V. its volumes, CLAIM. a volume's own claim, TERM. what it says of other Pods.
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
        _form(is_dns_label, "name of one part: lower-case letters, digits and -, at most 63"),
        """
        POD.resourceClaims[].name
        TERM.namespaces[]
        """,
    ),
    (
        FIELD_FORMAT,
        _form(lambda text: not text or is_dns_label(text), "name of a request: a-z, 0-9 and -"),
        "C.resources.claims[].request",
    ),
    (
        FIELD_FORMAT,
        _form(is_dns_subdomain, "name: lower-case letters, digits, - and ., at most 253"),
        """
        POD.hostAliases[].hostnames[] POD.hostnameOverride
        POD.resourceClaims[].resourceClaimName POD.resourceClaims[].resourceClaimTemplateName
        POD.securityContext.windowsOptions.gmsaCredentialSpecName
        C.securityContext.windowsOptions.gmsaCredentialSpecName
        """,
    ),
    (
        FIELD_FORMAT,
        _form(lambda text: not text or is_dns_subdomain(text), "name: a-z, 0-9, - and ."),
        """
        CLAIM.spec.storageClassName CLAIM.spec.volumeAttributesClassName
        V.csi.nodePublishSecretRef.name
        """,
    ),
    (
        FIELD_FORMAT,
        _form(is_qualified_name, "key: write name or domain/name"),
        """
        podFailurePolicy.rules[].onPodConditions[].type POD.readinessGates[].conditionType
        POD.schedulingGates[].name
        """,
    ),
    (
        FIELD_FORMAT,
        _form(_is_address, "IP address: write 10.0.0.7 or 2001:db8::7"),
        "POD.dnsConfig.nameservers[] POD.hostAliases[].ip",
    ),
    (FIELD_FORMAT, _form(_is_search, "domain to search in"), "POD.dnsConfig.searches[]"),
    (
        FIELD_FORMAT,
        _form(_HEADER, "header of HTTP: letters, digits and -"),
        """
        C.livenessProbe.httpGet.httpHeaders[].name C.readinessProbe.httpGet.httpHeaders[].name
        C.startupProbe.httpGet.httpHeaders[].name C.lifecycle.postStart.httpGet.httpHeaders[].name
        C.lifecycle.preStop.httpGet.httpHeaders[].name
        """,
    ),
    (
        FIELD_FORMAT,
        _form(_is_below, "path below a folder: no leading / and no .."),
        """
        POD.securityContext.seccompProfile.localhostProfile
        C.securityContext.seccompProfile.localhostProfile
        """,
    ),
    (FIELD_FORMAT, _form(_SYSCTL, "sysctl"), "POD.securityContext.sysctls[].name"),
    (
        FIELD_FORMAT,
        _form(_USER, "user of Windows: write NAME or DOMAIN\\NAME"),
        """
        POD.securityContext.windowsOptions.runAsUserName
        C.securityContext.windowsOptions.runAsUserName
        """,
    ),
    (
        FIELD_FORMAT,
        _form(lambda path: path.startswith("/"), "path from the root: begin it with /"),
        "V.nfs.path",
    ),
    (
        FIELD_FORMAT,
        _form(_INITIATOR, "name of iSCSI: write iqn.2001-04.com.example:storage"),
        "V.iscsi.iqn V.iscsi.initiatorName",
    ),
    (FIELD_FORMAT, _form(_is_driver, "driver's name: write csi.example.com"), "V.csi.driver"),
    (
        FIELD_FORMAT,
        _form(_is_quantity, "quantity: write 500m, 0.5, 64Mi or 1Gi"),
        """
        C.env[].valueFrom.resourceFieldRef.divisor V.downwardAPI.items[].resourceFieldRef.divisor
        V.projected.sources[].downwardAPI.items[].resourceFieldRef.divisor
        CLAIM.spec.resources.requests.* CLAIM.spec.resources.limits.* POD.overhead.*
        """,
    ),
    (
        FIELD_FORMAT,
        _form(_is_time, "time, and Kubernetes sets it: delete it"),
        """
        template.metadata.creationTimestamp template.metadata.deletionTimestamp
        CLAIM.metadata.creationTimestamp CLAIM.metadata.deletionTimestamp
        """,
    ),
    (FIELD_FORMAT, _form(_are_labels, "set of labels"), "CLAIM.metadata.labels"),
    (OUT_OF_RANGE, _between(0, 2**31 - 1), "POD.securityContext.supplementalGroups[]"),
    (OUT_OF_RANGE, _between(0, 255), "V.iscsi.lun V.fc.lun"),
    (OUT_OF_RANGE, _between(0, 0o777), "V.projected.defaultMode"),
    (OUT_OF_RANGE, _at_most(3), "POD.dnsConfig.nameservers"),
    (OUT_OF_RANGE, _at_most(32), "POD.dnsConfig.searches"),
    (OUT_OF_RANGE, _at_most(64), "POD.hostnameOverride"),
    (
        OUT_OF_RANGE,
        _at_most(20),
        "successPolicy.rules podFailurePolicy.rules[].onPodConditions C.restartPolicyRules",
    ),
)
_SHORT: Final = {
    "POD.": ("template.spec.",),
    "C.": ("template.spec.containers[].", "template.spec.initContainers[]."),
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
class _Node:
    """What is known of a place in a Job: how to judge it, and the places below."""

    judges: list[Judge] = field(default_factory=list)
    below: dict[str, _Node] = field(default_factory=dict)


def _tree(rule: Rule) -> _Node:
    """The places that a rule has something to say about."""
    root = _Node()
    for owner, judge, paths in _TABLE:
        if owner is not rule:
            continue
        for path in paths.split():
            head, _, rest = path.partition(".")
            for beginning in _SHORT.get(f"{head}.", (f"{head}.",)):
                node = root
                for part in (beginning + rest).replace("[]", ".[]").split("."):
                    node = node.below.setdefault(part, _Node())
                node.judges.append(judge)
    return root


def _breaches(tree: _Node, body: Body) -> Iterator[Breach]:
    found: list[Breach] = []
    _walk(tree, body.spec, SPEC, found)
    return iter(found)


def _walk(node: _Node, value: Any, at: Pointer, found: list[Breach]) -> None:
    for judge in node.judges:
        if wrong := judge(value):
            message, suggestion = wrong
            found.append((at, f"{_called(at)}: {message}", suggestion))
    below = node.below
    if not below:
        return
    if (items := below.get("[]")) is not None:
        for index, item in enumerate(value):
            _walk(items, item, (*at, index), found)
    elif (members := below.get("*")) is not None:
        for key, member in value.items():
            _walk(members, member, (*at, key), found)
    else:
        for key, member in below.items():
            if key in value:
                _walk(member, value[key], (*at, key), found)


def _called(at: Pointer) -> str:
    return str(next(part for part in reversed(at) if isinstance(part, str)))


for _rule in (REQUIRED_FIELD, NOT_ONE_OF, FIELD_FORMAT, OUT_OF_RANGE):
    check(_rule)(functools.partial(_breaches, _tree(_rule)))
