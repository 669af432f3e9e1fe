"""The public QA files: what is read from each format, and one clear error for each fault."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from treegrpo.envs.errors import DataFileError, UnknownOption
from treegrpo.envs.suite.search_qa.files import Document, SubQuestion, load_questions

QA = Path(__file__).parents[2] / "fixtures" / "qa"
CORPUS = QA / "corpus.jsonl"
NAMES = {
    "hotpotqa": "hotpotqa.json",
    "2wiki": "2wiki.json",
    "musique": "musique.jsonl",
    "nq": "nq.jsonl",
}


def rows(name: str) -> list[dict[str, Any]]:
    text = (QA / name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        return cast("list[dict[str, Any]]", json.loads(text))
    return [json.loads(line) for line in text.splitlines()]


def lines(entries: list[Any]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def refusal(path: Path, content: str | bytes | None = None, **options: Any) -> str:
    """Write the content, load it, and return the one message of the error."""
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataFileError) as caught:
        load_questions(path, **options)
    message = str(caught.value)
    assert message.count("\n") == 0
    assert f"'{options.get('corpus', path)}'" in message or f"'{path}'" in message
    assert message.endswith(".")
    return message


# What each format gives.


def test_hotpotqa_gives_its_paragraphs_and_its_supporting_titles() -> None:
    file = load_questions(QA / "hotpotqa.json")
    bridge, comparison = file.questions
    assert file.format == "hotpotqa" and file.skipped == 0 and file.corpus == ()
    assert file.digest == hashlib.sha256((QA / "hotpotqa.json").read_bytes()).hexdigest()
    assert bridge.id == "5a7f0c2e5542990a1b2c3d01" and bridge.answers == ("Port Amsel",)
    assert bridge.supporting == ("Brindle Lighthouse", "Mira Tolland") and bridge.hops == 2
    assert bridge.documents[0] == Document(
        "Brindle Lighthouse",
        "The Brindle Lighthouse stands on Gull Point. It was designed by Mira Tolland in 1871.",
    )
    assert comparison.hops == 2 and comparison.supporting == ("Caf\u00e9 Orla", "Tarn Hall")


def test_2wiki_gives_its_triples_as_steps() -> None:
    file = load_questions(QA / "2wiki.json")
    chain, comparison = file.questions
    assert file.format == "2wiki"
    assert chain.decomposition == (
        SubQuestion("Salt Harvest >> director", "Ivo Renn", "Salt Harvest"),
        SubQuestion("Ivo Renn >> mother", "Lena Renn", "Ivo Renn"),
    )
    assert comparison.hops == 4
    assert comparison.decomposition[1].title is None  # "Two Ferries" is no supporting title
    assert (
        chain.documents[0].text == "Salt Harvest is a 1964 drama film. It was directed by Ivo Renn."
    )


def test_musique_gives_aliases_hop_order_and_the_number_skipped() -> None:
    file = load_questions(QA / "musique.jsonl")
    two, three = file.questions
    assert file.format == "musique" and file.skipped == 1
    assert two.answers == ("Lake Quen", "Quen", "Quen Lake") and two.hops == 2
    assert two.decomposition[1] == SubQuestion("Where does #1 end?", "Lake Quen", "Sel")
    assert three.hops == 3 and three.supporting == ("Nils Varr", "Hesk")
    assert [document.title for document in three.documents] == ["Hesk", "Nils Varr", "Nils Varr"]


def test_nq_shares_the_passages_of_the_corpus() -> None:
    file = load_questions(QA / "nq.jsonl", corpus=CORPUS)
    assert file.format == "nq"
    assert file.questions[0].answers == ("Mira Tolland", "Tolland")
    assert file.questions[0].hops == 1 and file.questions[0].documents == ()
    assert file.corpus[1] == Document('"Green" (song)', "Green is a song.\nIt is short.")
    assert file.corpus_digest == hashlib.sha256(CORPUS.read_bytes()).hexdigest()


def test_a_corpus_can_be_given_to_any_format() -> None:
    file = load_questions(QA / "hotpotqa.json", corpus=CORPUS)
    assert len(file.corpus) == 3 and len(file.questions[0].documents) == 3


# The ways a file may be written.


@pytest.mark.parametrize("form", NAMES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("style", ["list", "indented list", "lines"])
def test_every_format_reads_the_same_in_every_style(
    tmp_path: Path, form: str, style: str, packed: bool
) -> None:
    entries = rows(NAMES[form])
    text = (
        lines(entries)
        if style == "lines"
        else json.dumps(entries, indent=2 if "in" in style else None)
    )
    path = tmp_path / "data"  # neither format nor packing is told by the name
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    file = load_questions(path, corpus=CORPUS)
    plain = load_questions(QA / NAMES[form], corpus=CORPUS)
    assert file.format == form
    assert file.questions == plain.questions and file.skipped == plain.skipped


def test_blank_lines_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    text = "\n" + lines(rows("musique.jsonl")).replace("\n", "\r\n\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_questions(path).questions == load_questions(QA / "musique.jsonl").questions


def test_the_column_form_of_mirrors_is_accepted(tmp_path: Path) -> None:
    entries = rows("hotpotqa.json")
    for entry in entries:
        entry["id"] = entry.pop("_id")
        titles, sentences = zip(*entry["context"], strict=True)
        entry["context"] = {"title": titles, "sentences": sentences}
        titles, numbers = zip(*entry["supporting_facts"], strict=True)
        entry["supporting_facts"] = {"title": titles, "sent_id": numbers}
    path = tmp_path / "q.jsonl"
    path.write_text(lines(entries))
    assert load_questions(path).questions == load_questions(QA / "hotpotqa.json").questions


def test_optional_fields_have_plain_defaults(tmp_path: Path) -> None:
    hotpot, musique = rows("hotpotqa.json")[0], rows("musique.jsonl")[2]
    del hotpot["supporting_facts"]
    hotpot["_id"] = 7
    del musique["question_decomposition"], musique["answerable"], musique["answer_aliases"]
    path = tmp_path / "q.jsonl"
    path.write_text(lines([hotpot]))
    (question,) = load_questions(path).questions
    assert question.id == "7" and question.hops == 1 and question.supporting == ()
    path.write_text(lines([musique]))
    (question,) = load_questions(path).questions
    assert question.hops == 3 and question.supporting == ("Hesk", "Nils Varr")
    for paragraph in musique["paragraphs"]:
        paragraph["is_supporting"] = False
    path.write_text(lines([musique]))
    assert load_questions(path).questions[0].hops == 1


# Faults of an entry.


def cut(field: str) -> Callable[[dict[str, Any]], None]:
    return lambda entry: entry.__delitem__(field)


def put(value: object, *keys: str | int) -> Callable[[dict[str, Any]], None]:
    def change(entry: Any) -> None:
        for key in keys[:-1]:
            entry = entry[key]
        entry[keys[-1]] = value

    return change


FAULTS: list[tuple[str, Callable[[dict[str, Any]], None], str, str]] = [
    (
        "hotpotqa",
        cut("question"),
        "field 'question' is missing; found an object with",
        "leave it out",
    ),
    ("hotpotqa", cut("_id"), "field '_id' is missing", "'_id' must be a text"),
    ("hotpotqa", cut("answer"), "field 'answer' is missing", "test files carry no answers"),
    (
        "hotpotqa",
        cut("context"),
        "field 'context' is missing",
        "a list of [title, [sentence, ...]]",
    ),
    (
        "hotpotqa",
        put(5, "question"),
        "field 'question' should be a text; found the number 5",
        "a text",
    ),
    (
        "hotpotqa",
        put("  ", "answer"),
        "field 'answer' should not be blank; found the string",
        "a text",
    ),
    ("hotpotqa", put("\ud800", "question"), "field 'question' should be valid Unicode", "a text"),
    (
        "hotpotqa",
        put([], "context"),
        "field 'context' is too short; found a list of 0",
        "[title, [",
    ),
    (
        "hotpotqa",
        put("text", "context"),
        "field 'context' should be a list; found the",
        "[title, [",
    ),
    (
        "hotpotqa",
        put({"title": ["a"]}, "context"),
        "'context' should be a list; found an object",
        "[",
    ),
    ("hotpotqa", put({}, "context"), "'context' should be a list; found an empty object", "[title"),
    (
        "hotpotqa",
        put("a", "context", 1),
        "field 'context[1]' should be a list; found the",
        "[title, [",
    ),
    ("hotpotqa", put(["a"], "context", 1), "field 'context[1]' is too short", "[title, ["),
    ("hotpotqa", put(["a", [], 1], "context", 1), "field 'context[1]' is too long", "[title, ["),
    ("hotpotqa", put("a", "context", 1, 1), "field 'context[1][1]' should be a list", "[title, ["),
    (
        "hotpotqa",
        put(None, "context", 1, 1, 0),
        "'context[1][1][0]' should be a text; found null",
        "[",
    ),
    (
        "hotpotqa",
        put("0", "supporting_facts", 0, 1),
        "'supporting_facts[0][1]' should be a whole",
        "[",
    ),
    ("2wiki", put([["a", "b"]], "evidences"), "field 'evidences[0]' is too short", "relation"),
    ("musique", cut("paragraphs"), "field 'paragraphs' is missing", "paragraph_text"),
    (
        "musique",
        put(1, "paragraphs", 0),
        "field 'paragraphs[0]' should be an object",
        "paragraph_text",
    ),
    (
        "musique",
        put("yes", "answerable"),
        "field 'answerable' should be true or false",
        "true or false",
    ),
    ("musique", put(1, "paragraphs", 0, "title"), "'paragraphs[0].title' should be a text", "idx"),
    (
        "musique",
        put("Quen", "answer_aliases"),
        "field 'answer_aliases' should be a list",
        "of texts",
    ),
    (
        "musique",
        put(9, "question_decomposition", 1, "paragraph_support_idx"),
        "field 'question_decomposition[1].paragraph_support_idx' is 9, but no paragraph",
        "Correct the entry",
    ),
    ("nq", put([], "golden_answers"), "field 'golden_answers' is too short", "at least one text"),
    ("nq", put("Tolland", "golden_answers"), "field 'golden_answers' should be a list", "at least"),
    ("nq", cut("golden_answers"), "field 'golden_answers' is missing", "at least one text"),
]


@pytest.mark.parametrize(("form", "change", "found", "to_do"), FAULTS)
@pytest.mark.parametrize("style", ["list", "lines"])
def test_a_faulty_entry_names_place_field_and_remedy(
    tmp_path: Path,
    style: str,
    form: Any,
    change: Callable[[dict[str, Any]], None],
    found: str,
    to_do: str,
) -> None:
    first, last = rows(NAMES[form])[0], rows(NAMES[form])[0]
    last["id" if "id" in last else "_id"] = "other"
    change(last)
    listed = f"[\n{json.dumps(first)},\n\n{json.dumps(last)}\n]"
    content = lines([first, last]) if style == "lines" else listed
    message = refusal(tmp_path / "q.json", content, corpus=CORPUS, source_format=form)
    assert message.startswith("Reading questions from ")
    assert ("line 2: " if style == "lines" else "entry 2 (line 4): ") in message
    assert found in message and to_do in message
    assert len(message) < 500


def test_an_id_used_twice_names_both_places(tmp_path: Path) -> None:
    one = rows("hotpotqa.json")[0]
    message = refusal(tmp_path / "q.jsonl", lines([one, one]))
    assert "line 2: field 'id': '5a7f0c2e5542990a1b2c3d01' was used before, at line 1" in message


def test_a_file_of_unanswerable_questions_only(tmp_path: Path) -> None:
    message = refusal(tmp_path / "q.jsonl", lines(rows("musique.jsonl")[1:2] * 2))
    assert "all 2 entries are marked as unanswerable" in message


def test_unknown_fields_list_what_each_format_has(tmp_path: Path) -> None:
    message = refusal(tmp_path / "q.jsonl", '{"text": 1, "label": 2}')
    assert "found an object with the fields 'text', 'label'" in message
    assert "'golden_answers'" in message and "'paragraphs'" in message
    assert "This looks like a corpus" in refusal(CORPUS)


def test_a_named_format_that_the_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    message = refusal(path, lines(rows("musique.jsonl")), source_format="hotpotqa")
    assert "field 'context' is missing" in message
    assert "has the fields of 'musique': use source_format='auto'" in message
    with pytest.raises(UnknownOption, match="Did you mean 'hotpotqa'"):
        load_questions(path, source_format=cast(Any, "hotpot"))


# The corpus.


def test_nq_without_a_corpus_says_so() -> None:
    message = refusal(QA / "nq.jsonl")
    assert "no corpus was given" in message and "Pass corpus=" in message


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (
            {"id": "9", "contents": "one line only"},
            "field 'contents' has no title line; found the string",
        ),
        ({"id": "9", "contents": ""}, "field 'contents' should not be blank"),
        ({"id": "9", "text": "x"}, "field 'contents' is missing"),
        ({"contents": '"a"\nb'}, "field '_id' is missing"),
        ({"id": "0", "contents": '"a"\nb'}, "field 'id': '0' was used before, at line 1"),
    ],
)
def test_a_faulty_corpus(tmp_path: Path, entry: dict[str, str], found: str) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text(lines([*rows("corpus.jsonl"), entry]))
    message = refusal(QA / "nq.jsonl", corpus=corpus)
    assert message.startswith(f"Reading a corpus from '{corpus}', line 4: ") and found in message


def test_a_missing_corpus(tmp_path: Path) -> None:
    message = refusal(QA / "nq.jsonl", corpus=tmp_path / "none.jsonl")
    assert message.startswith("Reading a corpus from ") and "no such file" in message
