"""Every backend, at every level that this host gives, is put through the conformance suite.

The statements are those of treegrpo.sandboxes.conformance: one test for each case and backend.
"""

import pytest

from treegrpo.sandboxes.conformance import CASES, Bench, Case, run_case


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(bench: Bench, case: Case) -> None:
    outcome = run_case(case, bench)
    if outcome.status == "skipped":
        pytest.skip(outcome.detail)
    if outcome.status == "open":
        pytest.xfail(f"{bench.level.name} does not promise it: {outcome.detail}")
    assert outcome.status == "holds", f"{case.statement}: {outcome.detail}"
    assert outcome.checks > 0
