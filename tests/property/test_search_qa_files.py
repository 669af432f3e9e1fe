"""Whatever the bytes, reading a QA file gives questions or one DataFileError, nothing else."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.suite.search_qa.files import QuestionFile, load_questions
from treegrpo.envs.suite.search_qa.scoring import exact_match

QA = Path(__file__).parents[1] / "fixtures" / "qa"
CORPUS = QA / "corpus.jsonl"
NAMES = ["hotpotqa.json", "2wiki.json", "musique.jsonl", "nq.jsonl"]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def read(data: bytes) -> QuestionFile | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(data)
        try:
            return load_questions(path, corpus=CORPUS)
        except DataFileError as error:
            message = str(error)
        assert str(path) in message and "\n" not in message
        return None


@given(
    name=st.sampled_from(NAMES),
    cut=st.integers(0, 4_000),
    noise=st.binary(max_size=6),
    packed=st.booleans(),
)
def test_damaged_bytes(name: str, cut: int, noise: bytes, packed: bool) -> None:
    data = (QA / name).read_bytes()
    data = gzip.compress(data) if packed else data
    at = cut % len(data)
    file = read(data[:at] + noise + data[at + len(noise) :])
    assert file is None or len(file.questions) <= 2


@given(name=st.sampled_from(NAMES), data=st.data(), value=values)
def test_any_value_in_any_field(name: str, data: st.DataObject, value: Any) -> None:
    text = (QA / name).read_text(encoding="utf-8")
    first = json.loads(text)[0] if name.endswith(".json") else json.loads(text.splitlines()[0])
    entry = cast("dict[str, Any]", first)
    here: Any = entry
    key: Any = data.draw(st.sampled_from(sorted(entry)))
    while isinstance(here[key], list | dict) and here[key] and data.draw(st.booleans()):
        here = here[key]
        key = data.draw(
            st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here)))
        )
    here[key] = value
    file = read(json.dumps([entry]).encode())
    assert file is None or (file.questions[0].answers and file.questions[0].hops >= 1)


@given(answer=st.text(max_size=20), others=st.lists(st.text(max_size=20), max_size=3))
def test_an_answer_meets_itself_and_nothing_meets_nothing(answer: str, others: list[str]) -> None:
    assert exact_match(f" {answer}\t", [*others, answer]) == bool(answer.strip())
    assert not exact_match("", [*others, answer])


@pytest.mark.parametrize("name", NAMES)
def test_the_fixtures_are_whole(name: str) -> None:
    file = read((QA / name).read_bytes())
    assert file is not None and len(file.questions) == 2
