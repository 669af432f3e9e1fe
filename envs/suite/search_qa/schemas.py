"""The public QA formats as schemas, and the one form that questions take after reading.

Each schema lists the fields that are read (the files carry more, which are ignored) and builds
a FileQuestion. Sources: HotpotQA arXiv 1809.09600, 2WikiMultihopQA arXiv 2011.01060, MuSiQue
arXiv 2108.00573, FlashRAG arXiv 2405.13576. A field's description is shown when it is wrong.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, cast

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    model_validator,
)

Format = Literal["hotpotqa", "2wiki", "musique", "nq"]


@dataclass(frozen=True)
class Document:
    """A passage that can be found and read."""

    title: str
    text: str


@dataclass(frozen=True)
class SubQuestion:
    """One hop of a decomposition; "#1" in the question stands for the first hop's answer."""

    question: str
    answer: str
    title: str | None
    """Title of the passage that answers it, where the file tells."""


@dataclass(frozen=True)
class FileQuestion:
    """A question of a file; `answers` begins with the gold answer, then its aliases.

    It is empty for a question that the file marks as unanswerable.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    hops: int = 1
    documents: tuple[Document, ...] = ()
    supporting: tuple[str, ...] = ()
    """Titles of the passages that are needed, in hop order where the file tells."""
    decomposition: tuple[SubQuestion, ...] = ()


def _as_pairs(value: object) -> object:
    """Accept the column form that some mirrors use: {"title": [...], "sentences": [...]}."""
    match cast("dict[str, list[object]]", value):
        case {"title": list() as titles, "sentences": list() as others} | {
            "title": list() as titles,
            "sent_id": list() as others,
        } if len(titles) == len(others):
            return list(zip(titles, others, strict=True))
        case _:
            return value


def _with_title(contents: str) -> str:
    if "\n" not in contents.strip():
        raise ValueError("has no title line")
    return contents.strip()


_Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
_Id = Annotated[_Text, Field(coerce_numbers_to_str=True)]
_Fact = tuple[str, StrictInt]
_Paragraph = tuple[str, list[str]]


class Schema(BaseModel):
    """An entry of a file: an id and what its format adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: _Id = Field(
        validation_alias=AliasChoices("_id", "id"), description="a text, named '_id' or 'id'"
    )


class Question(Schema):
    """An entry of a file of questions."""

    question: _Text = Field(description="a text that is not blank")

    @abstractmethod
    def build(self) -> FileQuestion | None:
        """Return the question, or None if the file marks it as unanswerable."""


class HotpotQA(Question):
    """A question over ten paragraphs, two of which are needed."""

    answer: _Text = Field(description="a text that is not blank")
    supporting_facts: Annotated[list[_Fact], BeforeValidator(_as_pairs)] = Field(
        default=[], description="a list of [title, sentence number]"
    )
    context: Annotated[list[_Paragraph], BeforeValidator(_as_pairs)] = Field(
        min_length=1, description="a list of [title, [sentence, ...]]"
    )

    def build(self) -> FileQuestion:
        """Return the question; its supporting titles keep the order of the file."""
        supporting = _distinct(title for title, _ in self.supporting_facts)
        return FileQuestion(
            self.id,
            self.question,
            (self.answer,),
            hops=max(1, len(supporting)),
            documents=tuple(
                Document(title, " ".join(" ".join(sentences).split()))
                for title, sentences in self.context
            ),
            supporting=supporting,
        )


class TwoWiki(HotpotQA):
    """A HotpotQA entry with its reasoning as triples."""

    evidences: list[tuple[str, str, str]] = Field(
        description="a list of [subject, relation, object]"
    )

    def build(self) -> FileQuestion:
        """Return the question with one step a triple, "subject >> relation" as MuSiQue has it."""
        plain = super().build()
        titles = {title: title for title in plain.supporting}
        steps = (
            SubQuestion(f"{subject} >> {relation}", value, titles.get(subject))
            for subject, relation, value in self.evidences
        )
        return replace(plain, decomposition=tuple(steps))


class MusiqueParagraph(BaseModel):
    """A paragraph of a MuSiQue question."""

    idx: StrictInt
    title: str
    paragraph_text: str
    is_supporting: StrictBool


class MusiqueStep(BaseModel):
    """A hop of a MuSiQue question."""

    question: _Text
    answer: _Text
    paragraph_support_idx: StrictInt | None = None


class Musique(Question):
    """A question composed of two to four single hops."""

    answer: _Text = Field(description="a text that is not blank")
    answer_aliases: list[_Text] = Field(default=[], description="a list of texts")
    answerable: StrictBool = Field(default=True, description="true or false")
    paragraphs: list[MusiqueParagraph] = Field(
        min_length=1, description="a list of {idx, title, paragraph_text, is_supporting}"
    )
    question_decomposition: list[MusiqueStep] = Field(
        default=[], description="a list of {question, answer, paragraph_support_idx}"
    )

    @model_validator(mode="after")
    def _steps_are_supported(self) -> Musique:
        known = {paragraph.idx for paragraph in self.paragraphs} | {None}
        for i, step in enumerate(self.question_decomposition):
            if step.paragraph_support_idx not in known:
                raise ValueError(
                    f"field 'question_decomposition[{i}].paragraph_support_idx' is "
                    f"{step.paragraph_support_idx}, but no paragraph has that idx"
                )
        return self

    def build(self) -> FileQuestion | None:
        """Return the question with its passages in the order of its hops, if answerable."""
        if not self.answerable:
            return None
        titles = {paragraph.idx: paragraph.title for paragraph in self.paragraphs}
        steps = tuple(
            SubQuestion(s.question, s.answer, titles.get(cast(int, s.paragraph_support_idx)))
            for s in self.question_decomposition
        )
        told = [step.title for step in steps if step.title is not None]
        marked = [paragraph.title for paragraph in self.paragraphs if paragraph.is_supporting]
        return FileQuestion(
            self.id,
            self.question,
            _distinct([self.answer, *self.answer_aliases]),
            hops=len(steps) or max(1, len(marked)),
            documents=tuple(Document(p.title, p.paragraph_text) for p in self.paragraphs),
            supporting=_distinct(told + marked),
            decomposition=steps,
        )


class NaturalQuestion(Question):
    """A question in FlashRAG form: answers, but no passages."""

    golden_answers: list[_Text] = Field(min_length=1, description="a list of at least one text")

    def build(self) -> FileQuestion:
        """Return the question, of one hop."""
        return FileQuestion(self.id, self.question, _distinct(self.golden_answers))


class Passage(Schema):
    """An entry of a FlashRAG corpus."""

    contents: Annotated[_Text, AfterValidator(_with_title)] = Field(
        description="the quoted title, a line break, the text"
    )

    def build(self) -> Document:
        """Return the passage, its title without the one pair of quotes around it."""
        title, _, text = self.contents.partition("\n")
        title = title.strip()
        quoted = len(title) > 2 and title[0] == title[-1] == '"'
        return Document(title[1:-1] if quoted else title, text.strip())


SCHEMAS: dict[Format, type[Question]] = {
    "hotpotqa": HotpotQA,
    "2wiki": TwoWiki,
    "musique": Musique,
    "nq": NaturalQuestion,
}


def without_answer(question: Question) -> FileQuestion | None:
    """Return a question that its file marks as unanswerable, with no answers.

    MuSiQue gives it the id of its answerable twin; here each has its own.
    """
    built = question.model_copy(update={"answerable": True}).build()
    if built is None:
        return None
    return replace(built, id=f"{built.id} (unanswerable)", answers=())


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
