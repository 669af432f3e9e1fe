"""key=value on the command line: JSON where it parses, text where it does not."""

from __future__ import annotations

import pytest

from treegrpo.cli.pairs import parse_pairs
from treegrpo.envs.errors import TreegrpoError


def test_values_are_json_where_they_parse() -> None:
    found = parse_pairs("--env-arg", ["top_k=3", "path=a=b", "fast=true", "name=xml"])
    assert found == {"top_k": 3, "path": "a=b", "fast": True, "name": "xml"}
    assert parse_pairs("--env-arg", None) == {}


@pytest.mark.parametrize("pairs", [["top_k"], ["=3"], ["a=1", "a=2"]])
def test_what_is_no_pair_is_refused(pairs: list[str]) -> None:
    with pytest.raises(TreegrpoError, match="Write --agent-arg top_k=3"):
        parse_pairs("--agent-arg", pairs)
