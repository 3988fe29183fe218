"""What the answer to a probe says about the policy for Jobs."""

from __future__ import annotations

import pytest

from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, NotFound, Unavailable
from openfero_gitops.dryrun.policy import VERSION, Policy, advice, evaluate, probe
from tests.support.build import NOW, minutes
from tests.support.paths import ROOT

EARLIER = NOW - minutes(10)
PROTECTED = Policy(EARLIER, VERSION, EARLIER)
DENIED = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "


@pytest.mark.parametrize(
    ("error", "version"),
    [
        (Forbidden(f"{DENIED}policy version 1 is active"), 1),
        (Forbidden(f"{DENIED}policy version 23 is active"), 23),
        (Forbidden(f"{DENIED}{keys.APPROVED_BY} must be your name"), 0),
        (Invalid(f"{DENIED}{keys.APPROVED_BY} must be your name"), 0),
        (Forbidden('jobs.batch "a" is forbidden: exceeded quota: jobs'), 0),
        (None, 0),
        (Forbidden(f"{DENIED}no such image"), None),
        (Forbidden('admission webhook "w" denied the request: no'), None),
        (Forbidden('User "a" cannot create resource "jobs"'), None),
        (NotFound('namespaces "a" not result'), None),
    ],
)
def test_the_version_is_in_the_message(error: ApiError | None, version: int | None) -> None:
    """Quotas are checked after policies; what else refuses the Job hides the policy."""
    result = evaluate(error, None, NOW)
    assert result is not None
    assert (result.version, result.at) == (version, NOW)
    is_tied = error is not None and ("is active" in str(error) or keys.APPROVED_BY in str(error))
    assert result.approvals_since == (NOW if is_tied else None)


def test_what_was_found_lasts_until_something_else_is_found() -> None:
    """An answer that says nothing changes nothing; approvals are verified since the first one."""
    active = Forbidden(f"{DENIED}policy version {VERSION} is active")
    assert evaluate(active, PROTECTED, NOW) == Policy(NOW, VERSION, EARLIER)
    hidden = evaluate(Forbidden(f"{DENIED}no"), PROTECTED, NOW)
    assert hidden == Policy(NOW, VERSION, EARLIER, f"{DENIED}no")
    assert evaluate(None, PROTECTED, NOW) == Policy(NOW, 0)
    assert evaluate(Unavailable("gone"), PROTECTED, NOW) is None


def test_the_advice_says_where_and_what_to_do() -> None:
    """A missing policy, an older one and an unknown one are each named with their namespaces."""
    assert advice({}) == advice({"jobs": PROTECTED}) == ""
    assert advice({"jobs": Policy(NOW, VERSION + 1)}) == ""
    text = advice({"jobs": PROTECTED, "shop": Policy(NOW, 0), "web": Policy(NOW, 0)})
    assert "can create or patch Jobs in namespaces shop, web" in text
    assert "jobPolicy.create=true" in text
    text = advice({"jobs": Policy(NOW, None, None, "no such image")})
    assert text.startswith("it is unknown")
    assert text.endswith("openfero-policy-probe: no such image")


def test_the_chart_has_the_version_that_is_looked_for() -> None:
    """The policy's message names the version, and the annotation that it refuses."""
    template = (ROOT / "charts/openfero-gitops/templates/job-policy.yaml").read_text()
    message = f"{keys.POLICY_PROBE} is reserved; policy version {VERSION} is active"
    assert message in template
    assert keys.POLICY_PROBE in probe("jobs")["metadata"]["annotations"]
