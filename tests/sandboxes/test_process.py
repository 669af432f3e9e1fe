"""The process backend, at the highest level of this host, against the whole suite."""

import pytest

from treegrpo.sandboxes.conformance import CASES, Bench, Case


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_process(highest: Bench, case: Case, put) -> None:
    put(highest, case)
