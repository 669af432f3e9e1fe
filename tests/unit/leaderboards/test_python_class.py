"""Agents named as module:name: functions, classes, the whole protocol, and what is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.toy import TOY
from treegrpo.envs.errors import UnknownOption
from treegrpo.leaderboards.agents.python_class import load_agent, source_digest
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.evaluate import evaluate

MINE = "tests.unit.leaderboards.own_agents"


def bundle_of(agent: Any, out: Path) -> Bundle:
    evaluate(agent, TOY, split="test", num_tasks=2, trials=1, seed=0, out=out)
    return read_bundle(out)


def actions(bundle: Bundle) -> list[str]:
    return [
        event.action
        for episode in bundle.episodes
        for event in bundle.events(episode)
        if event.kind == "step"
    ]


def test_a_function_is_an_agent(tmp_path: Path) -> None:
    agent = load_agent(f"{MINE}:guess", {"number": 5})
    bundle = bundle_of(agent, tmp_path / "b")
    assert set(actions(bundle)) == {
        '<tool_call>{"name": "guess", "arguments": {"number": 5}}</tool_call>'
    }
    entry = bundle.manifest.agent
    assert (entry.name, entry.settings) == (f"{MINE}:guess", {"number": 5})
    assert bundle.episodes[0].tokens.output is None


def test_a_class_with_a_simple_act_is_made_once(tmp_path: Path) -> None:
    agent = load_agent(f"{MINE}:Counting", {"start": 100})
    bundle = bundle_of(agent, tmp_path / "b")
    assert sorted(actions(bundle)) == [
        f'<tool_call>{{"name": "guess", "arguments": {{"number": {n}}}}}</tool_call>'
        for n in range(101, 109)
    ]
    assert agent.name == "counting"


def test_a_class_may_follow_the_protocol(tmp_path: Path) -> None:
    bundle = bundle_of(load_agent(f"{MINE}:Whole", {"number": -1}), tmp_path / "b")
    assert (bundle.manifest.agent.name, bundle.manifest.agent.digest) == ("whole", "v1")
    assert bundle.episodes[0].tokens.output == 3


def test_a_crash_is_its_episodes(tmp_path: Path) -> None:
    bundle = bundle_of(load_agent(f"{MINE}:crash", {}), tmp_path / "b")
    found = [(e.failure, e.failure_detail, e.turns) for e in bundle.episodes]
    assert found == [("policy", "RuntimeError: out of ideas", 1)] * 2


def test_digests_cover_the_source_and_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {load_agent(f"{MINE}:guess", {"number": n}).digest for n in (1, 2)}
    digests.add(load_agent(f"{MINE}:crash", {}).digest)
    assert len(digests) == 3
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in (("mine_one", "1"), ("mine_two", "2")):
        (tmp_path / f"{name}.py").write_text(f"def act(messages, tools):\n    return '{text}'\n")
    one, two = (load_agent(f"mine_{n}:act", {}).digest for n in ("one", "two"))
    assert one != two
    assert source_digest(len) == source_digest(len)


def test_a_module_that_raises_is_told_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine_broken.py").write_text("x = 1\ny = x / 0\n")
    with pytest.raises(UnknownOption, match=r"ZeroDivisionError at .*mine_broken.py:2"):
        load_agent("mine_broken:act", {})


@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        ("mine", {}, "write it as module:name"),
        (":act", {}, "write it as module:name"),
        ("no_such_module:act", {}, "there is no module 'no_such_module'. .*PYTHONPATH=. treegrpo"),
        (f"{MINE}.more:act", {}, "there is no module"),
        (f"{MINE}:gess", {}, "has no 'gess'"),
        (f"{MINE}:NOT_AN_AGENT", {}, "it is no agent. Give a function act"),
        (f"{MINE}:one_argument", {}, "it is no agent"),
        (f"{MINE}:guess", {"nubmer": 1}, "it is no agent"),
        (f"{MINE}:Whole", {}, r"asked for with no options; it takes \(number: 'int'\)"),
        (f"{MINE}:Counting", {"begin": 1}, "asked for with begin; it takes"),
        (f"{MINE}:Half", {}, "but no name, digest, settings"),
    ],
)
def test_what_is_no_agent_is_refused(place: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOption, match=message):
        load_agent(place, options)
