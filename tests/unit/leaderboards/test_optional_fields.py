"""Optional fields of an episode: left out where there is nothing to say, by both readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.leaderboards.toy import TOY, ToyAgent
from treegrpo.leaderboards import standalone_verify
from treegrpo.leaderboards.agents import EpisodeView, scripted_agent
from treegrpo.leaderboards.agents.search import SearchAgent
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.chain import spelled
from treegrpo.leaderboards.errors import BundleError, ProviderFailed
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.schema import EpisodeRecord, SearchEntry
from treegrpo.leaderboards.usage import Searched, Usage


def bundle_of(agent: Any, out: Path, **changes: Any) -> Bundle:
    settings: dict[str, Any] = {"split": "test", "num_tasks": 2, "trials": 1, "seed": 0}
    evaluate(agent, TOY, out=out, **settings | changes)
    return read_bundle(out)


def test_they_are_not_there_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    bundle_of(scripted_agent("null"), tmp_path / "b")
    for line in (tmp_path / "b" / "episodes.jsonl").read_text().splitlines():
        assert json.loads(line).keys() & {"search", "reruns"} == set()


def test_a_record_with_them_reads_back(tmp_path: Path) -> None:
    [first, _] = bundle_of(SearchAgent(scripted_agent("oracle"), expand=2), tmp_path / "b").episodes
    assert first.search == SearchEntry(branches=3, turns=4, tool_calls=4)
    played = first.model_copy(update={"reruns": 2})
    assert EpisodeRecord.model_validate_json(played.model_dump_json()) == played
    assert standalone_verify.check(tmp_path / "b") == read_bundle(tmp_path / "b").digest


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "search": lambda line: line.update(search=None),
    "reruns": lambda line: line.update(reruns=None),
    "no rerun": lambda line: line.update(reruns=0),
    "a field less": lambda line: line["search"].pop("turns"),
    "a field more": lambda line: line["search"].update(leaves=3),
    "a negative count": lambda line: line["search"].update(turns=-1),
    "another name": lambda line: line.update(searches=line.pop("search")),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_spellings_are_refused_by_both_readers(tmp_path: Path, name: str) -> None:
    bundle_of(SearchAgent(scripted_agent("oracle")), tmp_path / "b")
    place = tmp_path / "b" / "episodes.jsonl"
    lines = [json.loads(line) for line in place.read_bytes().splitlines()]
    WRONG[name](lines[0])
    place.write_bytes(b"".join(spelled(line) for line in lines))
    with pytest.raises(ValidationError):
        EpisodeRecord.model_validate(lines[0])
    with pytest.raises(standalone_verify.Refused):
        standalone_verify.require(lines[0], standalone_verify.EPISODE, "episodes.jsonl, line 1")
    with pytest.raises(BundleError, match=r"episodes\.jsonl, line 1, field (search|reruns)"):
        read_bundle(tmp_path / "b")


def failing(times: int, *, stop_at: int = -1) -> ToyAgent:
    """An agent whose provider fails at the second task's second turn, so many times."""
    failures: list[str] = []

    def act(view: EpisodeView) -> str:
        if view.env.episode.index == 1 and view.env.episode.turns == 1:
            failures.append(view.key)
            if len(failures) == stop_at:
                raise KeyboardInterrupt
            if len(failures) <= times:
                raise ProviderFailed("down")
        return view.env.oracle()

    return ToyAgent(act, tokens=Usage(output=5, requests=2, search=Searched(1, 1, 1)))


def test_a_rerun_adds_up_and_leaves_one_log(tmp_path: Path) -> None:
    found = bundle_of(failing(2), tmp_path / "b", retry_failed=3, concurrency=1)
    first, second = found.episodes
    assert (first.reruns, second.reruns, second.success) == (None, 2, True)
    assert (second.tokens.output, second.requests) == (15, 6)
    assert second.search == SearchEntry(branches=3, turns=3, tool_calls=3)
    assert len(list((tmp_path / "b" / "trajectories").iterdir())) == 2


def test_only_provider_failures_are_played_again(tmp_path: Path) -> None:
    def crash(view: EpisodeView) -> str:
        raise RuntimeError("no idea")

    agent = ToyAgent(crash)
    found = bundle_of(agent, tmp_path / "b", retry_failed=3)
    assert [episode.reruns for episode in found.episodes] == [None, None]
    assert len(agent.finished) == 2


def test_a_kill_between_the_attempts_forgets_none_of_them(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        bundle_of(failing(9, stop_at=3), tmp_path / "b", retry_failed=3, concurrency=1)
    rest = failing(0)
    found = bundle_of(rest, tmp_path / "b", retry_failed=3, concurrency=1)
    assert rest.finished == ["1/0"]
    assert [episode.reruns for episode in found.episodes] == [None, 2]
    assert found.episodes[1].tokens.output == 15


def test_without_retries_the_failure_stands(tmp_path: Path) -> None:
    seen: list[str | None] = []
    found = bundle_of(
        failing(1), tmp_path / "b", concurrency=1, watch=lambda e: seen.append(e.failure)
    )
    assert [episode.failure for episode in found.episodes] == [None, "provider"]
    assert seen == [None, "provider"]
