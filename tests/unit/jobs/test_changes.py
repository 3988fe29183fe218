"""What a reader gets of the Jobs that changed, compared with all Jobs before and after."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.remediation import Foreign
from openfero_gitops.jobs.changes import JobChange
from openfero_gitops.jobs.view import View
from tests.support import build

_NAMES = st.sampled_from(("job-1", "job-2", "job-3"))
_UIDS = st.sampled_from(("first", "second"))
_ACTS = st.one_of(
    st.tuples(st.just("apply"), _NAMES, _UIDS),
    st.tuples(st.just("take over"), _NAMES, _UIDS),
    st.tuples(st.just("remove"), _NAMES, _UIDS),
    st.tuples(st.just("reset"), _NAMES, _UIDS),
    st.tuples(st.just("take"), _NAMES, _UIDS),
)


def job(name: str, uid: str, version: int) -> Any:
    """Return a Job at a resource version."""
    return build.remediation(name=name, uid=f"{name}-{uid}", resource_version=str(version))


@given(acts=st.lists(_ACTS, max_size=20))
def test_changes_lead_from_what_was_to_what_is(acts: list[tuple[str, str, str]]) -> None:
    """What a reader takes is the difference between the Jobs now and when it took last."""
    view = View()
    view.apply(job("job-1", "first", 1))
    record = view.record_changes()
    before = {remediation.uid: remediation for remediation in view}
    for version, (act, name, uid) in enumerate((*acts, ("take", "", "")), start=2):
        changed = job(name or "job-1", uid, version)
        if act == "apply":
            view.apply(changed)
        elif act == "take over":
            view.apply(Foreign(changed.key, changed.uid, str(version), "its name is another"))
        elif act == "remove":
            view.remove(changed.key, changed.uid, str(version))
        elif act == "reset":
            view.reset(changed.key.namespace)
        else:
            now = {remediation.uid: remediation for remediation in view}
            expected = {
                uid: JobChange(before.get(uid), now.get(uid))
                for uid in before.keys() | now.keys()
                if before.get(uid) is not now.get(uid)
            }
            taken = {(each.before or each.after).uid: each for each in record.take()}  # type: ignore[union-attr]
            assert taken == expected
            before = now


def test_a_record_that_ended_gets_nothing() -> None:
    """What changes after the end of a record is not kept for it."""
    view = View()
    record = view.record_changes()
    view.end_record(record)
    view.apply(job("job-1", "first", 1))
    assert record.take() == []
