"""Boards as a store returns them, made by hand: small ones, one of 1,000 rows, hostile text."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from treegrpo.envs.recorder import Event
from treegrpo.leaderboards.board import (
    Board,
    BoardKey,
    BoardRow,
    EnvironmentDetail,
    LedgerEntry,
    RunDetail,
    TaskDifficulty,
    VerificationEntry,
)
from treegrpo.leaderboards.schema import (
    AgentEntry,
    Budgets,
    EpisodeRecord,
    Machine,
    Manifest,
    TaskEntry,
    Tokens,
)
from treegrpo.leaderboards.stats import UNIT, clustered_interval
from treegrpo.leaderboards.verify import WORDS

Words = dict[str, Literal["replayed", "recomputed", "declared"]]
REPLAYED: Words = dict(WORDS)
DECLARED: Words = dict.fromkeys(REPLAYED, "declared")
HOSTILE = (
    "<script>window.hacked=1</script><img src=x onerror=window.hacked=2>"
    "\x1b[31mred\x1b[0m \u202egnp.exe\u202c </script><!-- {{ 7*7 }} \u2028 '\"&"
)
KEY = BoardKey(
    id="5f1d2c3b4a69",
    env_id="treegrpo/SearchQA-v1",
    env_kwargs={},
    split="test",
    track="single-pass",
    tasks=hashlib.sha256(b"tasks").hexdigest(),
)
NUM_TASKS, TRIALS = 40, 2


@dataclass(frozen=True)
class Agent:
    """How an invented agent acts: the chance to solve a task, and what an episode costs it."""

    name: str
    skill: float
    calls: float = 5.0
    tokens: int | None = 900
    price: float | None = None
    fields: dict[str, Any] = field(default_factory=dict)


AGENTS = (
    Agent("oracle", 2.0, 3.0, None, fields={"pinned": "oracle", "rank": None}),
    Agent("random", 0.07, 11.2, None, fields={"pinned": "random", "rank": None}),
    Agent("null", -1.0, 0.0, None, fields={"pinned": "null", "rank": None}),
    Agent(
        "atlas-react", 0.94, 6.4, 2140, 0.0214, {"model": "atlas-2-large", "provider": "Meridian"}
    ),
    Agent("tree-grpo 0.9M", 0.86, 4.2, 310, 0.0, {"training": "trained-in-suite"}),
    Agent(
        "kestrel-tools", 0.83, 7.9, 4380, 0.0391, {"model": "kestrel-pro", "provider": "Kestrel"}
    ),
    Agent("atlas-mini", 0.71, 5.1, 1220, 0.0019, {"model": "atlas-2-mini", "provider": "Meridian"}),
    Agent("flat-grpo 0.9M", 0.66, 4.9, 335, 0.0, {"training": "trained-in-suite"}),
    Agent(
        "finch-7b-react", 0.58, 8.8, 2870, 0.0008, {"model": "finch-7b", "training": "zero-shot"}
    ),
    Agent("warm start", 0.34, 5.8, 402, 0.0, {"training": "tuned-on-benchmark"}),
    Agent("kestrel-nano", 0.27, 9.3, None, None, {"model": "kestrel-nano", "provider": "Kestrel"}),
)


def digest_of(text: str) -> str:
    """Return the invented digest of a name."""
    return hashlib.sha256(text.encode()).hexdigest()


def outcomes(agent: Agent) -> list[list[bool]]:
    """Return success per task and trial; a task is as hard for one agent as for another."""
    rng = random.Random(agent.name)
    found: list[list[bool]] = []
    for task in range(NUM_TASKS):
        chance = agent.skill - 0.45 * (task % 5 - 2) / 2 * min(agent.skill, 1.0)
        found.append([rng.random() < chance for _ in range(TRIALS)])
    return found


def make_row(agent: Agent, number: int) -> BoardRow:
    """Return the row of an agent; its numbers are those of `make_detail`'s episodes."""
    won = outcomes(agent)
    score = clustered_interval(
        {str(i): [float(x) for x in trials] for i, trials in enumerate(won)}, bounds=UNIT
    )
    solved = sum(map(sum, won))
    episodes = NUM_TASKS * TRIALS
    cost = None if agent.price is None else agent.price * episodes
    values: dict[str, Any] = {
        "digest": digest_of(agent.name),
        "agent": agent.name,
        "agent_digest": digest_of(agent.name + " weights"),
        "model": None,
        "provider": None,
        "pinned": None,
        "tier": 1 + number % 2,
        "training": None,
        "rank": max(1, number - 2),
        "rank_low": max(1, number - 3),
        "rank_high": max(1, number - 1),
        "success": score.mean,
        "success_low": score.low,
        "success_high": score.high,
        "reward": score.mean * 0.97,
        "num_tasks": NUM_TASKS,
        "trials": TRIALS,
        "attempts": 1 + number % 3,
        "turns": agent.calls + 1,
        "tool_calls": agent.calls,
        "wall_seconds": 0.4 * agent.calls,
        "input_tokens": None if agent.tokens is None else agent.tokens * 6 * episodes,
        "sampled_tokens": None if agent.tokens is None else agent.tokens * episodes,
        "dollars": None if cost is None else f"{cost:.4f}".rstrip("0").rstrip("."),
        "dollars_per_success": None if cost is None or not solved else f"{cost / solved:.6f}",
        "agent_failures": number % 4,
        "infrastructure_failures": number % 2,
        "words": REPLAYED,
        "evaluated": f"2026-11-{10 + number % 18:02d}T06:{number % 60:02d}:00Z",
        "submitted": f"2026-11-{11 + number % 18:02d}T07:00:00Z",
        "signer": "SHA256:m3rid1an" if number % 3 == 0 else None,
        "outdated": False,
    }
    if agent.fields.get("pinned"):
        values |= {"rank_low": None, "rank_high": None}
    return BoardRow(**values | agent.fields)


def make_board(agents: tuple[Agent, ...] = AGENTS, key: BoardKey = KEY) -> Board:
    """Return a board with one row per agent: pinned rows first, then the best."""
    order = sorted(
        agents, key=lambda a: (a.fields.get("pinned") is None, -sum(map(sum, outcomes(a))))
    )
    return Board(key=key, rows=[make_row(agent, i) for i, agent in enumerate(order)])


def hostile_board() -> Board:
    """Return a board all of whose texts attack the page."""
    agent = Agent(
        HOSTILE,
        0.5,
        price=0.001,
        fields={
            "model": HOSTILE,
            "provider": HOSTILE,
            "signer": HOSTILE,
            "outdated": True,
            "rank": None,
            "rank_low": None,
            "rank_high": None,
        },
    )
    key = KEY.model_copy(update={"id": "badbadbadbad", "env_kwargs": {"corpus": HOSTILE}})
    return make_board((*AGENTS[:3], agent, AGENTS[3]), key)


def large_board(rows: int = 1_000) -> Board:
    """Return a board of many rows with names, models and numbers as they come in life."""
    rng = random.Random(0)
    models = [f"model-{i}-instruct" for i in range(40)]
    found: list[BoardRow] = []
    for i in range(rows):
        score = round(rng.random(), 4)
        half = 0.04 + 0.06 * rng.random()
        found.append(
            make_row(AGENTS[3], i).model_copy(
                update={
                    "digest": digest_of(f"large {i}"),
                    "agent": f"agent-{rng.choice(('react', 'plan', 'tools'))}-{i}",
                    "model": rng.choice(models),
                    "success": score,
                    "success_low": max(0.0, score - half),
                    "success_high": min(1.0, score + half),
                    "reward": score - 0.01234567,
                    "turns": 3 + 9 * rng.random(),
                    "tool_calls": 2 + 9 * rng.random(),
                    "wall_seconds": 100 * rng.random(),
                    "input_tokens": rng.randrange(10**5, 10**7),
                    "sampled_tokens": rng.randrange(10**4, 10**6),
                    "dollars": f"{rng.random() * 40:.6f}1",
                    "dollars_per_success": f"{rng.random() * 2:.6f}1",
                    "agent_failures": rng.randrange(9),
                    "infrastructure_failures": rng.randrange(3),
                    "evaluated": f"2026-{1 + i % 11:02d}-{1 + i % 28:02d}T06:{i % 60:02d}:00Z",
                    "submitted": f"2026-{1 + i % 11:02d}-{1 + i % 28:02d}T09:{i % 60:02d}:00Z",
                }
            )
        )
    found.sort(key=lambda row: -row.success)
    ranked = [
        row.model_copy(
            update={"rank": i + 1, "rank_low": max(1, i - 9), "rank_high": i + 2 + i % 17}
        )
        for i, row in enumerate(found)
    ]
    return Board(key=KEY.model_copy(update={"id": "1000b0a4d000"}), rows=ranked)


def make_detail(agent: Agent, number: int, key: BoardKey = KEY) -> RunDetail:
    """Return the whole of one run, two verifications and four lines of the ledger with it."""
    row = make_row(agent, number)
    episodes = _episodes(agent)
    verified = VerificationEntry(
        time="2026-11-27T10:00:00Z",
        treegrpo_version="0.1.0",
        verified=True,
        changed=[],
        episodes=len(episodes),
        first_difference=None,
        words=REPLAYED,
    )
    differs = verified.model_copy(
        update={
            "time": "2026-11-28T10:00:00Z",
            "verified": False,
            "changed": ["env_digest"],
            "first_difference": "episode 3/0, step 2: observation 'Paris' became 'Lyon'",
            "words": DECLARED,
        }
    )
    return RunDetail(
        key=key,
        row=row,
        manifest=_manifest(agent, row, episodes, key),
        verifications=[verified, differs] if number % 2 else [verified],
        ledger=_ledger(row.digest),
        episodes=episodes,
        removed=None,
    )


def make_environment(board: Board) -> EnvironmentDetail:
    """Return the environment of a board, with the difficulty of its tasks."""
    contestants = [outcomes(agent) for agent in AGENTS[3:]]
    tasks = [
        TaskDifficulty(
            index=i,
            difficulty=1 + i % 5,
            success=sum(sum(won[i]) for won in contestants) / (TRIALS * len(contestants)),
            episodes=TRIALS * len(contestants),
        )
        for i in range(NUM_TASKS)
    ]
    return EnvironmentDetail(
        env_id=board.key.env_id,
        env_kwargs=board.key.env_kwargs,
        split=board.key.split,
        boards=[board.key],
        pinned=[row for row in board.rows if row.pinned is not None],
        tasks=tasks,
        replayed_episodes=1_760,
        matched_episodes=1_760,
    )


def _episodes(agent: Agent) -> list[EpisodeRecord]:
    rng = random.Random(agent.name + " costs")
    found: list[EpisodeRecord] = []
    for index, trials in enumerate(outcomes(agent)):
        for trial, success in enumerate(trials):
            calls = max(0, round(agent.calls + rng.uniform(-3, 3)))
            name = digest_of(f"{agent.name} {index} {trial}")
            tokens = (
                None if agent.tokens is None else max(1, agent.tokens + rng.randrange(-200, 200))
            )
            broken = not success and rng.random() < 0.05
            found.append(
                EpisodeRecord(
                    index=index,
                    trial=trial,
                    task_id=f"question-{index}",
                    difficulty=1 + index % 5,
                    seed=index * 100 + trial,
                    reward="1.0" if success else "0.0",
                    reward_components={"match": "1.0" if success else "0.0"},
                    success=success,
                    end_reason=None if broken else "submitted",
                    failure="provider" if broken else None,
                    failure_detail="no answer within 60 s" if broken else None,
                    turns=calls + 1,
                    tool_calls=calls,
                    tokens=Tokens(input=None, cached=None, output=tokens, reasoning=None),
                    dollars=None
                    if agent.price is None
                    else f"{agent.price:.4f}".rstrip("0").rstrip("."),
                    requests=calls + 1,
                    wall_seconds="1.5",
                    chain=name,
                    trajectory=name,
                    state_hash=name,
                )
            )
    return found


def _manifest(
    agent: Agent, row: BoardRow, episodes: list[EpisodeRecord], key: BoardKey
) -> Manifest:
    name = "agent" if row.agent == HOSTILE else row.agent
    return Manifest(
        format="treegrpo-bundle",
        format_version=2,
        env_id=key.env_id,
        env_kwargs={"corpus": "small"},
        env_digest=digest_of("environment"),
        scorer_digest=digest_of("scorer"),
        budgets=Budgets(
            max_turns=12,
            max_tool_calls=24,
            max_seconds=None,
            max_observation_chars=4000,
            max_action_chars=8000,
        ),
        suite=None,
        split=key.split,
        first_index=0,
        num_tasks=NUM_TASKS,
        trials=TRIALS,
        seed=7,
        tasks=[
            TaskEntry(
                index=i, id=f"question-{i}", difficulty=1 + i % 5, digest=digest_of(f"task {i}")
            )
            for i in range(NUM_TASKS)
        ],
        agent=AgentEntry(
            name=name,
            digest=row.agent_digest,
            model=None if row.model == HOSTILE else row.model,
            provider=None,
            settings={"temperature": 1.0, "note": row.agent},
            prompt_digest=None,
        ),
        track=key.track,
        training=row.training,
        registration=None,
        prices="meridian-2026-11-01" if row.dollars else None,
        versions={"treegrpo": "0.1.0", "python": "3.11.7"},
        command="treegrpo eval --agent oracle --env treegrpo/SearchQA-v1 --split test --tasks 40 "
        "--trials 2 --seed 7 --out DIR",
        created=row.evaluated,
        machine=Machine(cores=2, system="Linux x86_64"),
        root=digest_of("root"),
        digest=row.digest,
    )


def _ledger(subject: str) -> list[LedgerEntry]:
    found: list[LedgerEntry] = []
    previous = "0" * 64
    kinds: tuple[Any, ...] = ("register", "submit", "verify", "rescore")
    for number, kind in enumerate(kinds):
        entry = LedgerEntry(
            number=number,
            time=f"2026-11-2{5 + number // 2}T08:0{number}:00Z",
            kind=kind,
            subject=subject,
            who="local" if number else "meridian",
            detail={"reason": "source changed"} if kind == "rescore" else {},
            previous=previous,
            hash=digest_of(f"{subject} {number}"),
        )
        previous = entry.hash
        found.append(entry)
    return found


class FixtureSource:
    """The invented boards as what a site is built from; no episode has a log."""

    def __init__(self, *boards: Board) -> None:
        """Hold these boards; each run on them has its details."""
        self._boards = {board.key.id: board for board in boards}
        self.reads: list[str] = []

    def boards(self) -> list[BoardKey]:
        return [board.key for board in self._boards.values()]

    def board(self, board_id: str) -> Board:
        return self._boards[board_id]

    def run_detail(self, digest: str) -> RunDetail:
        self.reads.append(digest)
        for board in self._boards.values():
            for number, row in enumerate(board.rows):
                if row.digest == digest:
                    known = {agent.name: agent for agent in AGENTS}
                    agent = known.get(row.agent) or Agent(row.agent, 0.5, price=0.001)
                    return make_detail(agent, number, board.key).model_copy(update={"row": row})
        raise AssertionError(f"no run {digest}")

    def environment_detail(
        self, env_id: str, env_kwargs: Mapping[str, Any], split: str
    ) -> EnvironmentDetail:
        wanted = (env_id, env_kwargs, split)
        for board in self._boards.values():
            if (board.key.env_id, board.key.env_kwargs, board.key.split) == wanted:
                return make_environment(board)
        raise AssertionError(f"no environment {wanted}")

    def episode_logs(self, digest: str) -> Callable[[int, int], list[Event]]:
        return lambda index, trial: []
