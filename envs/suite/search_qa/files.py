"""Questions from the public multi-hop and open-domain QA files, read from a local path.

    format      file                   its own passages       hops
    hotpotqa    JSON list              context                supporting titles
    2wiki       JSON list              context                supporting titles
    musique     JSON Lines             paragraphs             length of the decomposition
    nq          JSON Lines (FlashRAG)  none: needs a corpus   1

"nq" is the form {id, question, golden_answers} that FlashRAG gives to NQ, TriviaQA, PopQA and
others; its corpus is JSON Lines {id, contents} with the quoted title as the first line. Every
format may come as a list or as lines, plain or gzip. Nothing is ever downloaded.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from pydantic import ValidationError

from treegrpo.envs.errors import DataFileError, UnknownOption, suggest
from treegrpo.envs.records import DataFile, Entry, describe
from treegrpo.envs.suite.search_qa.schemas import (
    SCHEMAS,
    Document,
    FileQuestion,
    Format,
    Passage,
    Question,
    Schema,
    SubQuestion,
    without_answer,
)

__all__ = ["Document", "FileQuestion", "QuestionFile", "SubQuestion", "load_questions"]

SourceFormat = Literal["auto", "hotpotqa", "2wiki", "musique", "nq"]

MAX_BYTES = 2 * 1024**3
"""The most that one line, or one whole JSON list, may take when unpacked."""

# The first of these fields that the first entry has tells the format.
_MARKS: dict[str, Format] = {
    "golden_answers": "nq",
    "paragraphs": "musique",
    "question_decomposition": "musique",
    "evidences": "2wiki",
    "context": "hotpotqa",
    "supporting_facts": "hotpotqa",
}

_WRONG = {
    "missing": "is missing",
    "string_type": "should be a text",
    "string_too_short": "should not be blank",
    "string_unicode": "should be valid Unicode",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
    "model_type": "should be an object",
    "bool_type": "should be true or false",
    "int_type": "should be a whole number",
    "too_short": "is too short",
    "too_long": "is too long",
}

_S = TypeVar("_S", bound=Schema)


@dataclass(frozen=True)
class QuestionFile:
    """What a file held; the digests are sha256 (hex) of the bytes on disk."""

    format: Format
    digest: str
    questions: tuple[FileQuestion, ...]
    skipped: int = 0
    """Entries left out because the file marks them as unanswerable."""
    corpus: tuple[Document, ...] = ()
    """Passages shared by all questions, from the corpus file."""
    corpus_digest: str | None = None


def load_questions(
    path: Path,
    *,
    corpus: Path | None = None,
    source_format: SourceFormat = "auto",
    keeps_unanswerable: bool = False,
    is_open: bool = False,
) -> QuestionFile:
    """Return the questions of a local file, and the passages of the corpus if one is given.

    Args:
        path: the file of questions.
        corpus: a FlashRAG corpus; "nq" needs one, all formats take one. Held in memory.
        source_format: "auto" tells the format by the fields of the first entry.
        keeps_unanswerable: whether entries marked so are kept, without an answer, or skipped.
        is_open: whether passages come from elsewhere, so that "nq" needs no corpus.

    Raises:
        DataFileError: a file is missing, empty or malformed; names file, line and field.
        UnknownOption: no such source_format.
    """
    if source_format not in get_args(SourceFormat):
        known = get_args(SourceFormat)
        raise UnknownOption(
            f"Unknown source_format '{source_format}'.{suggest(source_format, known)} "
            f"Choose one of {', '.join(known)}."
        )
    file = DataFile(Path(path), "questions", MAX_BYTES)
    shared = None if corpus is None else DataFile(Path(corpus), "a corpus", MAX_BYTES)
    form: Format | None = None if source_format == "auto" else source_format
    form, questions, skipped = _read_questions(
        file,
        form,
        has_corpus=is_open or shared is not None,
        keeps_unanswerable=keeps_unanswerable,
    )
    passages = () if shared is None else _read_corpus(shared)
    corpus_digest = None if shared is None else shared.digest()
    return QuestionFile(form, file.digest(), questions, skipped, passages, corpus_digest)


def _read_questions(
    file: DataFile, form: Format | None, *, has_corpus: bool, keeps_unanswerable: bool
) -> tuple[Format, tuple[FileQuestion, ...], int]:
    """Return the format, the questions and the number of entries that were skipped."""
    questions: list[FileQuestion] = []
    places: dict[str, str] = {}
    skipped = 0
    with closing(file.entries()) as entries:
        for entry in entries:
            form = form or _detect(file, entry)
            if form == "nq" and not has_corpus:
                raise file.error(
                    "format 'nq' has no passages of its own, and no corpus was given",
                    "Pass corpus=<path of a JSON Lines file of {id, contents}>.",
                )
            read = _validate(file, entry, SCHEMAS[form])
            question = read.build()
            if question is None and keeps_unanswerable:
                question = without_answer(read)
            if question is None:
                skipped += 1
                continue
            _claim(file, question.id, entry.place, places)
            questions.append(question)
    if form is None or not questions:
        found = f"all {skipped} entries are marked as unanswerable"
        raise file.error(found, "Give a file with answerable questions.")
    return form, tuple(questions), skipped


def _read_corpus(file: DataFile) -> tuple[Document, ...]:
    documents: list[Document] = []
    places: dict[str, str] = {}
    with closing(file.entries()) as entries:
        for entry in entries:
            passage = _validate(file, entry, Passage)
            _claim(file, passage.id, entry.place, places)
            documents.append(passage.build())
    return tuple(documents)


def _format_of(entry: Entry) -> Format | None:
    return next((form for mark, form in _MARKS.items() if mark in entry.fields), None)


def _detect(file: DataFile, entry: Entry) -> Format:
    form = _format_of(entry)
    if form is None:
        to_do = f"A question has one of the fields {', '.join(map(repr, _MARKS))}."
        if "contents" in entry.fields:
            to_do = "This looks like a corpus: pass it as corpus=, and the questions as path."
        found = f"no known format has these fields; found {describe(entry.fields)}"
        raise file.error(found, to_do, entry.place)
    return form


def _claim(file: DataFile, name: str, place: str, places: dict[str, str]) -> None:
    """Note where an id is used, or refuse its second use."""
    if name in places:
        found = f"field 'id': '{name}' was used before, at {places[name]}"
        raise file.error(found, "Give each entry its own id.", place)
    places[name] = place


def _validate(file: DataFile, entry: Entry, schema: type[_S]) -> _S:
    try:
        return schema.model_validate(entry.fields)
    except ValidationError as failure:
        raise _field_error(file, entry, schema, failure) from failure


def _field_error(
    file: DataFile, entry: Entry, schema: type[Schema], failure: ValidationError
) -> DataFileError:
    """Return the one message for the first field that is wrong."""
    error = failure.errors(include_url=False)[0]
    kind, location, value = error["type"], error["loc"], cast(object, error["input"])
    found = f"found {describe(value)}"
    if kind == "missing" and isinstance(location[-1], int):  # of a pair, not of an object
        kind, location = "too_short", location[:-1]
    if kind == "value_error":
        wrong = str(error.get("ctx", {}).get("error", error["msg"]))
    else:
        wrong = _WRONG.get(kind, error["msg"])
    if not location:  # a rule over several fields, which names them itself
        return file.error(wrong, "Correct the entry or leave it out.", entry.place)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)[1:]
    field = str(location[0])
    known = schema.model_fields.get("id" if field == "_id" else field)
    shape = known.description if known else None
    to_do = f"'{field}' must be {shape}: correct the entry or leave it out."
    other = _format_of(entry)
    if other is not None and issubclass(schema, Question) and schema is not SCHEMAS[other]:
        to_do = f"The entry has the fields of '{other}': use source_format='auto'."
    elif field == "answer" and kind == "missing":
        to_do = "Public test files carry no answers: use the training or the development file."
    return file.error(f"field '{name}' {wrong}; {found}", to_do, entry.place)
