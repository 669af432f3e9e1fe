"""Results of others, given as an every-eval-ever record: claims, one per result of the file.

Only numbers are taken, as the source states them: there is no episode, so nothing can be
replayed or recomputed. The lines per sample beside a record are not read, and nothing is
fetched. What no claim has a place for is left out: generation settings, judges, prices.

    agent       model_info.additional_details.agent, else model_info.name
    model       model_info.id
    env         source_data.dataset_name
    metric      metric_name, else metric_id, else "score"
    source      source_name, else source_organization_name
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Never

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from treegrpo.envs.digest import digest_bytes
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.claimed import ClaimedResult, Uncertainty
from treegrpo.leaderboards.errors import first_fault
from treegrpo.leaderboards.export.every_eval_ever import NAME

MAX_BYTES = 16 * 2**20
MAX_RESULTS = 10_000
_TO_DO = "Get a valid record from its source, or leave it out."
_EPOCH = re.compile(r"\d{1,11}(\.\d{1,9})?")
Bound = float | Literal["Infinity", "-Infinity"] | None


class _Part(BaseModel):
    """A part of a record: the fields that are read; others are skipped, wrong types are not."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _StandardError(_Part):
    value: float
    method: str | None = None


class _Interval(_Part):
    lower: float
    upper: float
    confidence_level: float | None = None
    method: str | None = None


class _Uncertainty(_Part):
    standard_error: _StandardError | None = None
    confidence_interval: _Interval | None = None
    num_samples: int | None = None


class _Score(_Part):
    score: float
    uncertainty: _Uncertainty | None = None


class _Metric(_Part):
    metric_id: str | None = None
    metric_name: str | None = None
    lower_is_better: bool
    min_score: Bound = None
    max_score: Bound = None


class _Dataset(_Part):
    dataset_name: str


class _Result(_Part):
    evaluation_name: str
    evaluation_timestamp: str | None = None
    source_data: _Dataset
    metric_config: _Metric
    score_details: _Score


class _Source(_Part):
    source_name: str | None = None
    source_organization_name: str
    evaluator_relationship: Literal["first_party", "third_party", "collaborative", "other"]


class _Library(_Part):
    name: str
    version: str


class _Model(_Part):
    name: str
    id: str
    additional_details: dict[str, str] | None = None


class _Record(_Part):
    schema_version: Annotated[str, Field(pattern=r"^0\.[23](\.\d{1,3})?$")]
    evaluation_id: str
    evaluation_timestamp: str | None = None
    retrieved_timestamp: str
    source_metadata: _Source
    eval_library: _Library
    model_info: _Model
    evaluation_results: Annotated[list[_Result], Field(min_length=1, max_length=MAX_RESULTS)]


def read_claims(path: Path) -> list[ClaimedResult]:
    """Return what the record at `path` claims, in the order of its results.

    Raises:
        TreegrpoError: names the file, the result and the field that is wrong.
    """
    wanted = f"A record of {NAME} at '{path}' asked for"
    if not path.is_file():
        found = "no regular file" if path.exists() else "nothing"
        raise TreegrpoError(f"{wanted}, found {found}. Give the path of one JSON file.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TreegrpoError(
            f"{wanted}, but it cannot be read: {error.strerror}. Check its permissions."
        ) from error
    return parse_claims(data, f"'{path}'")


def parse_claims(data: bytes, where: str) -> list[ClaimedResult]:
    """Return what the bytes of a record claim; `where` names them in messages.

    Raises:
        TreegrpoError: as `read_claims`.
    """
    if len(data) > MAX_BYTES:
        raise TreegrpoError(
            f"{where} has more than {MAX_BYTES} bytes. Give a record of fewer results."
        )
    try:
        record = _Record.model_validate(_parsed(data, where))
    except ValidationError as error:
        raise TreegrpoError(f"{where}, {first_fault(error)}. {_TO_DO}") from None
    claims: list[ClaimedResult] = []
    for number, result in enumerate(record.evaluation_results):
        try:
            claims.append(_claim(record, result, digest_bytes(data)))
        except ValidationError as error:
            raise TreegrpoError(
                f"{where}, result {number} ({ascii(result.evaluation_name)[:100]}), "
                f"{first_fault(error)}. {_TO_DO}"
            ) from None
    return claims


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(
            data.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_no_double
        )
    except (ValueError, RecursionError) as error:
        fault = ascii(str(error))[1:-1][:200]
        raise TreegrpoError(f"{where} is not one JSON value ({fault}). {_TO_DO}") from None


def _no_number(word: str) -> Never:
    raise ValueError(f"{word} is no number")


def _no_double(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Readers disagree on which of the two counts.
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:100]} is there twice")
    return found


def _claim(record: _Record, result: _Result, source_digest: str) -> ClaimedResult:
    source, model, metric = record.source_metadata, record.model_info, result.metric_config
    numbers = result.score_details.uncertainty or _Uncertainty()
    return ClaimedResult(
        source=source.source_name or source.source_organization_name,
        source_format=f"{NAME} {record.schema_version}",
        source_id=record.evaluation_id,
        source_digest=source_digest,
        relationship=source.evaluator_relationship,
        agent=(model.additional_details or {}).get("agent", model.name),
        model=model.id,
        env=result.source_data.dataset_name,
        evaluation=result.evaluation_name,
        metric=metric.metric_name or metric.metric_id or "score",
        lower_is_better=metric.lower_is_better,
        score=repr(result.score_details.score),
        min_score=_bound(metric.min_score),
        max_score=_bound(metric.max_score),
        uncertainty=_uncertainty(numbers),
        num_samples=numbers.num_samples,
        evaluated=_time(result.evaluation_timestamp or record.evaluation_timestamp),
        retrieved=_time(record.retrieved_timestamp) or "",
        library=f"{record.eval_library.name} {record.eval_library.version}",
    )


def _uncertainty(numbers: _Uncertainty) -> Uncertainty:
    error, interval = numbers.standard_error, numbers.confidence_interval
    methods = [part.method for part in (error, interval) if part is not None and part.method]
    level = None if interval is None else interval.confidence_level
    return Uncertainty(
        standard_error=None if error is None else repr(error.value),
        low=None if interval is None else repr(interval.lower),
        high=None if interval is None else repr(interval.upper),
        confidence=None if level is None else repr(level),
        method="; ".join(dict.fromkeys(methods)) or None,
    )


def _bound(value: Bound) -> str | None:
    return None if value is None or isinstance(value, str) else repr(float(value))


def _time(text: str | None) -> str | None:
    """Return a moment as 2026-11-28T06:00:00Z; a text that names none stays as it is."""
    try:
        if text is not None and _EPOCH.fullmatch(text):
            moment = datetime.fromtimestamp(int(text.partition(".")[0]), UTC)
        else:
            moment = datetime.fromisoformat(text or "")
    except (ValueError, OverflowError, OSError):
        return text
    # Without an offset nobody knows which moment was meant.
    if moment.tzinfo is None:
        return text
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
