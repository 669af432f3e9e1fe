"""What the pages embed: a board in few bytes, and the outcomes of one run for comparisons.

A page of a thousand rows stays below 200 kB with its scripts, so a board is embedded by columns,
and each field names its encoding:

    digest   128 bits of it as 22 characters of base64url; one text for the whole column
    text     as it is
    listed   an index into `lists[field]`, -1 for null: words that many rows share
    share    ten-thousandths, as an integer
    number   an integer, or four significant digits
    time     minutes since the earliest evaluation, `since` (seconds since 1970)

A field may be stored as the distance from another one, below or above. A column of digits is one
text; one whose values are all the same is one value in `same`. Null stays null. All text is made
visible here, so that a script can show it as it comes. The numbers in full are in the JSON file
beside the page.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, JsonValue

from treegrpo.envs.digest import digest
from treegrpo.leaderboards.board import Board, BoardRow, RunDetail
from treegrpo.leaderboards.schema import EpisodeRecord
from treegrpo.leaderboards.site.text import letter, options, visible
from treegrpo.leaderboards.stats.budget import Spent, budget_curve
from treegrpo.leaderboards.stats.intervals import t_quantile
from treegrpo.leaderboards.summary import CostUnit, cost

Encoding = Literal["digest", "text", "listed", "share", "number", "time"]
Field = tuple[Encoding, str | None, Literal[-1, 1]]
FIELDS: dict[str, Field] = {
    "digest": ("digest", None, 1),
    "agent": ("text", None, 1),
    "model": ("listed", None, 1),
    "provider": ("listed", None, 1),
    "pinned": ("listed", None, 1),
    "tier": ("number", None, 1),
    "training": ("listed", None, 1),
    "rank": ("number", None, 1),
    "rank_low": ("number", "rank", -1),
    "rank_high": ("number", "rank", 1),
    "success": ("share", None, 1),
    "success_low": ("share", "success", -1),
    "success_high": ("share", "success", 1),
    "reward": ("number", None, 1),
    "num_tasks": ("number", None, 1),
    "trials": ("number", None, 1),
    "attempts": ("number", None, 1),
    "turns": ("number", None, 1),
    "tool_calls": ("number", None, 1),
    "wall_seconds": ("number", None, 1),
    "input_tokens": ("number", None, 1),
    "sampled_tokens": ("number", None, 1),
    "dollars": ("number", None, 1),
    "dollars_per_success": ("number", None, 1),
    "agent_failures": ("number", None, 1),
    "infrastructure_failures": ("number", None, 1),
    "words": ("listed", None, 1),
    "evaluated": ("time", None, 1),
    "submitted": ("time", "evaluated", 1),
    "signer": ("listed", None, 1),
    "outdated": ("number", None, 1),
}
"""Field of a row -> its encoding, the field that it is stored as a distance from, and the way."""
UNITS: tuple[CostUnit, ...] = ("tool_calls", "sampled_tokens", "dollars", "turns")
_MAX_DEGREES = 30
"""Above, the script has a formula for the t quantile that is right to four digits."""


def embedded(value: object) -> str:
    """Return JSON that can stand in any HTML: no "<", ">" or "&", ASCII alone."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def environment_id(env_id: str, env_kwargs: dict[str, JsonValue], split: str) -> str:
    """Return the name of an environment's page: 12 digits that depend on these three alone."""
    return digest([env_id, env_kwargs, split])[:12]


def run_name(run: str) -> str:
    """Return the name of a run's pages: half of its digest, 128 bits that nobody can match."""
    return run[:32]


def board_data(board: Board) -> dict[str, Any]:
    """Return what a board's page embeds, the t quantiles of its comparisons among it."""
    since = min((_seconds(row.evaluated) for row in board.rows), default=0)
    columns = _Columns(board.rows, since)
    key = board.key
    return {
        "id": key.id,
        "env": visible(key.env_id),
        "options": visible(options(key.env_kwargs)),
        "split": visible(key.split),
        "track": key.track,
        "tasks": key.tasks,
        "rows": len(board.rows),
        "since": since,
        "fields": FIELDS,
        "columns": columns.columns,
        "same": columns.same,
        "lists": columns.lists,
        "t": [round(t_quantile(0.95, n), 4) for n in range(1, _MAX_DEGREES + 1)],
    }


def run_outcomes(detail: RunDetail) -> dict[str, Any]:
    """Return the outcomes of a run by task, and its budget curves.

    A task is named by its index and digest: only tasks that are the same are compared. The seed
    is text, since a script's numbers have 53 bits. A curve is there for every unit that all
    episodes count: [budget, score, low, high].
    """
    solved: defaultdict[int, int] = defaultdict(int)
    trials: defaultdict[int, int] = defaultdict(int)
    for episode in detail.episodes:
        solved[episode.index] += episode.success
        trials[episode.index] += 1
    entries = [] if detail.manifest is None else detail.manifest.tasks
    tasks = [task for task in entries if task.index in trials]
    return {
        "agent": visible(detail.row.agent),
        "seed": None if detail.manifest is None else str(detail.manifest.seed),
        "tasks": [f"{task.index}:{(task.digest or '')[:8]}" for task in tasks],
        "difficulty": [task.difficulty for task in tasks],
        "solved": [solved[task.index] for task in tasks],
        "trials": [trials[task.index] for task in tasks],
        "curves": {unit: curve for unit in UNITS if (curve := _curve(detail.episodes, unit))},
    }


def run_script(detail: RunDetail) -> str:
    """Return the outcomes as a script: a page opened from a file may load that, but no JSON."""
    name = embedded(run_name(detail.row.digest))
    return f"treegrpo.loaded({name},{embedded(run_outcomes(detail))});\n"


def model_json(model: BaseModel) -> str:
    """Return a model in full, for download."""
    return json.dumps(model.model_dump(mode="json"), ensure_ascii=True, allow_nan=False) + "\n"


class _Columns:
    """The columns of some rows, encoded."""

    def __init__(self, rows: Sequence[BoardRow], since: int) -> None:
        self.columns: dict[str, list[Any] | str] = {}
        self.same: dict[str, Any] = {}
        self.lists: dict[str, list[Any]] = {}
        self._rows, self._since = rows, since
        for name, (kind, base, way) in FIELDS.items():
            values: list[Any] = [getattr(row, name) for row in rows]
            if kind == "digest":
                self.columns[name] = "".join(map(_digest_text, values))
            elif kind == "text":
                self.columns[name] = [visible(value) for value in values]
            elif kind == "listed":
                self._keep(name, self._listed(name, values))
            else:
                self._keep(name, self._numbers(values, kind, base, way))

    def _keep(self, name: str, column: list[Any]) -> None:
        if len(column) > 1 and all(value == column[0] for value in column):
            self.same[name] = column[0]
        elif all(type(value) is int and 0 <= value <= 9 for value in column):
            self.columns[name] = "".join(map(str, column))
        else:
            self.columns[name] = column

    def _listed(self, name: str, values: Sequence[Any]) -> list[int]:
        known: list[Any] = []
        places: dict[str, int] = {}
        found: list[int] = []
        for value in values:
            if value is None:
                found.append(-1)
                continue
            spelled = json.dumps(value, sort_keys=True)
            if spelled not in places:
                places[spelled] = len(known)
                words = name == "words"
                known.append(
                    {n: letter(word) for n, word in value.items()} if words else visible(value)
                )
            found.append(places[spelled])
        self.lists[name] = known
        return found

    def _numbers(
        self, values: Sequence[Any], kind: Encoding, base: str | None, way: int
    ) -> list[int | float | None]:
        numbers = [self._number(value, kind) for value in values]
        if base is None:
            return numbers
        bases = [self._number(getattr(row, base), kind) or 0 for row in self._rows]
        return [
            None if number is None else way * (number - start)
            for number, start in zip(numbers, bases, strict=True)
        ]

    def _number(self, value: Any, kind: Encoding) -> int | float | None:
        if value is None:
            return None
        if kind == "share":
            return round(10_000 * value)
        if kind == "time":
            return (_seconds(value) - self._since) // 60
        return _short(value)


def _digest_text(value: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(run_name(value))).decode("ascii").rstrip("=")


def _seconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp())


def _short(value: float | str) -> int | float:
    """Return an integer as it is, anything else with four significant digits."""
    if isinstance(value, int):
        return int(value)
    short = float(f"{float(value):.4g}")
    return int(short) if short.is_integer() else short


def _curve(episodes: list[EpisodeRecord], unit: CostUnit) -> list[list[float | None]]:
    found: defaultdict[str, list[Spent]] = defaultdict(list)
    for episode in episodes:
        spent = cost(episode, unit)
        if spent is None:
            return []
        found[str(episode.index)].append(Spent(spent, episode.success))
    points = budget_curve(found, unit=unit.replace("_", " "))
    return [
        [_short(point.budget), *map(_share, (point.score.mean, point.score.low, point.score.high))]
        for point in points
    ]


def _share(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
