"""treegrpo.rollout.starts: where trees begin, with the game and with a real oracle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import numpy as np
import pytest

from tests.toy_game import Game
from treegrpo.envs.errors import SandboxFailed, TreegrpoError, UnknownOption
from treegrpo.envs.registry import make
from treegrpo.envs.snapshot import core_of
from treegrpo.rollout.starts import STARTS, StartState, get_start_state, start_state
from treegrpo.rollout.starts.archive import Archive
from treegrpo.rollout.starts.oracle_prefix import MAX_UNSOLVED, OraclePrefix
from treegrpo.tree import Failure, Tree

Env = gymnasium.Env[str, str]
EASY = {"difficulty": 1}


class Guided(Game):
    """The game with an oracle, which says what it was made with."""

    def __init__(self, *, says: str = "green", turns: int = 5) -> None:
        super().__init__(turns=turns)
        self.says = says

    def oracle(self) -> str:
        if self.says == "broken":
            raise LookupError("no colour")
        if self.says == "lost":
            raise SandboxFailed("the sandbox is gone")
        return self.says


def rng(*parts: int) -> np.random.Generator:
    return np.random.default_rng(parts or 0)


def through_json(start: StartState, fresh: StartState) -> Any:
    """Load a start state's state into a fresh one, as a checkpoint would; return the fresh one."""
    fresh.load(json.loads(json.dumps(start.state())))
    assert fresh.state() == start.state()
    return fresh


# ------------------------------------------------------------------------------- the table


def test_the_start_states_are_there_by_name() -> None:
    assert STARTS.names() == ["archive", "oracle_prefix", "reset"]
    for name in STARTS.names():
        assert get_start_state(name, {}).name == name


def test_reset_moves_nothing() -> None:
    env = Guided()
    env.reset(seed=1)
    before, start = env.state_hash(), get_start_state("reset", {})
    assert start.question(1, EASY, rng()) is None and start.begin(env, 1, rng()) == []
    assert env.state_hash() == before and start.state() is None


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("reset", {"share": 0.5}, r"Unknown option 'start_options.share' .* Its options: none."),
        ("archive", {"capacty": 3}, "of start state 'archive'. Did you mean 'capacity'?"),
        ("archive", {"share": 1}, "start_options.share of .*: got 1; allowed: less than 1. Share"),
        ("oracle_prefix", {"share": "half"}, "got 'half'; allowed: a valid number"),
        ("oracle_prefix", {"on_below": 0.2}, "on_below=0.2 is above off_above=0.05"),
        ("oracle_prefix", {"window": 0}, "got 0; allowed: greater than or equal to 1"),
        ("orakel_prefix", {}, "Unknown start state .* Did you mean 'oracle_prefix'?"),
    ],
)
def test_wrong_options_are_told(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UnknownOption, match=told):
        get_start_state(name, options)


def test_only_a_start_state_can_be_registered() -> None:
    with pytest.raises(TreegrpoError, match="is no subclass of StartState"):
        start_state("tests_function")(cast(Any, lambda: 0))
    assert "tests_function" not in STARTS.names()


@pytest.mark.parametrize("name", ["archive", "oracle_prefix"])
def test_the_state_of_something_else_is_refused(name: str) -> None:
    with pytest.raises(TreegrpoError, match=f"'{name}' asked to go on .* of another kind"):
        get_start_state(name, {}).load({"levels": 3, "entries": 3})


# --------------------------------------------------------------------------- oracle_prefix


def begun(start: StartState, env: Env, seed: int, **options: Any) -> int:
    """Return the depth at which a question of that seed begins."""
    env.reset(seed=seed, options=options or EASY)
    return len(start.begin(env, seed, rng(seed)))


def scored(
    rewards: Sequence[float], difficulty: int = 1, start: str = "reset", failure: str | None = None
) -> list[list[Tree]]:
    """Questions of one tree with one leaf for each reward."""
    questions: list[list[Tree]] = []
    for reward in rewards:
        tree = Tree("q", difficulty=difficulty, start=start)
        tree.add(None, observation_ids=[1])
        tree.add(0, reward=reward, terminated=True, failure=cast("Failure | None", failure))
        questions.append([tree])
    return questions


def test_a_share_of_the_questions_begins_at_a_uniform_depth_before_the_end() -> None:
    env, start = Guided(), OraclePrefix(share=0.4)
    depths = Counter(begun(start, env, seed) for seed in range(600))
    assert set(depths) == {0, 1, 2, 3, 4}, "five turns are the end"
    assert abs(depths[0] - 360) < 50 and all(abs(depths[d] - 60) < 30 for d in range(1, 5))


def test_the_environment_stands_where_the_oracles_turns_lead() -> None:
    env, start, walked = Guided(), OraclePrefix(share=0.99), 0
    for seed in range(12):
        env.reset(seed=seed)
        turns = start.begin(env, seed, rng(seed))
        walked += bool(turns)
        other = Guided()
        other.reset(seed=seed)
        for turn in turns:
            assert turn.action == other.oracle() and turn.ids is turn.observation_ids is None
            assert turn.messages == other.step(turn.action)[-1]["messages"]
        assert env.state_hash() == other.state_hash() and not env.episode.ended
        assert env.step("green") == other.step("green")
    assert walked > 8


def test_a_question_begins_where_its_stream_says() -> None:
    depths = [[begun(OraclePrefix(), Guided(), seed) for seed in range(20)] for _ in range(2)]
    assert depths[0] == depths[1] and len(set(depths[0])) > 2
    env, start = Guided(), OraclePrefix()
    assert [begun(start, env, seed) for seed in reversed(range(20))] == depths[0][::-1]


def test_an_oracle_of_one_turn_leaves_nothing_in_between() -> None:
    env, start = Guided(turns=1), OraclePrefix(share=0.99)
    assert {begun(start, env, seed) for seed in range(10)} == {0} and not env.episode.ended


def test_it_is_on_until_success_is_known() -> None:
    start = OraclePrefix()
    start.observe(scored([1.0] * 49))
    assert start.is_on(1)
    start.observe(scored([1.0]))
    assert not start.is_on(1) and start.is_on(2)


def test_between_the_rates_it_stays_as_it_is() -> None:
    start = OraclePrefix(window=100)
    start.observe(scored([1.0] * 3 + [0.0] * 97))
    assert start.is_on(1), "3 % is not above 5 %"
    start.observe(scored([1.0] * 10 + [0.0] * 90))
    assert not start.is_on(1), "about 8 %"
    for _ in range(3):
        start.observe(scored([1.0] * 2 + [0.0] * 98))
        assert not start.is_on(1), "some 3 to 5 % is not below 1 %"
    start.observe(scored([0.0] * 300))
    assert start.is_on(1)


def test_only_questions_of_a_level_that_is_on_begin_along_the_way() -> None:
    env, start = Guided(), OraclePrefix(share=0.99)
    start.observe(scored([1.0] * 60))
    assert {begun(start, env, seed, difficulty=1) for seed in range(9)} == {0}
    assert {begun(start, env, seed, difficulty=2) for seed in range(9)} != {0}


def test_episodes_begun_elsewhere_or_failed_do_not_count() -> None:
    start = OraclePrefix()
    start.observe(scored([1.0] * 99, start="oracle_prefix"))
    start.observe(scored([1.0] * 99, failure="sandbox"))
    assert start.is_on(1) and start.state() == OraclePrefix().state()


def test_success_is_what_the_environment_calls_so() -> None:
    env, start = Guided(), OraclePrefix()
    start.observe(scored([0.5] * 60))
    assert start.is_on(1)
    cast(Any, env).success_threshold = 0.5
    begun(start, env, 0)
    start.observe(scored([0.5] * 60))
    assert not start.is_on(1)


def test_what_it_knows_survives_a_checkpoint_to_the_last_bit() -> None:
    start = OraclePrefix(window=70)
    begun(start, Guided(), 3)
    for difficulty in (1, 2):
        start.observe(scored([1.0, 0.0, 0.0] * 30, difficulty))
        start.observe(scored([0.0] * 17, difficulty))
    resumed = through_json(start, OraclePrefix(window=70))
    for one in (start, resumed):
        one.observe(scored([0.0, 1.0] * 7))
    assert resumed.state() == start.state() and not resumed.is_on(2)


def test_an_environment_without_an_oracle_is_told() -> None:
    with pytest.raises(TreegrpoError, match=r"oracle of Game gave no action .*ships no oracle"):
        begun(OraclePrefix(share=0.99), Game(), 0)
    with pytest.raises(TreegrpoError, match=r"Guided gave no action \(LookupError: no colour\)"):
        begun(OraclePrefix(share=0.99), Guided(says="broken"), 0)


@pytest.mark.parametrize(("says", "error"), [("crash", RuntimeError), ("lost", SandboxFailed)])
def test_a_failing_environment_is_not_the_oracles_fault(says: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        begun(OraclePrefix(share=0.99), Guided(says=says), 0)
    assert not isinstance(caught.value, TreegrpoError)


def test_a_question_that_the_oracle_does_not_solve_begins_at_its_reset() -> None:
    env, start = Guided(says="red"), OraclePrefix(share=0.99)
    env.reset(seed=5)
    before = env.state_hash()
    assert start.begin(env, 5, rng(5)) == [] and env.state_hash() == before
    assert cast(Any, start.state())["unsolved"] == 1


def test_an_oracle_that_solves_nothing_is_told() -> None:
    env, start = Guided(says="red"), OraclePrefix(share=0.99)
    while cast(Any, start.state())["unsolved"] < MAX_UNSOLVED - 1:
        begun(start, env, 0)
    with pytest.raises(TreegrpoError, match=f"Guided solved none of {MAX_UNSOLVED} questions"):
        begun(start, env, 0)


def test_an_oracle_that_solved_one_may_miss_any_number() -> None:
    start = OraclePrefix(share=0.99)
    begun(start, Guided(), 0)
    for _ in range(MAX_UNSOLVED + 1):
        assert begun(start, Guided(says="red"), 0) == 0
    assert cast(Any, start.state())["solved"] == 1


@pytest.fixture(scope="module")
def sql() -> Env:
    return make("treegrpo/SQL-v0", disable_env_checker=True)


def test_a_real_oracle_leads_on_from_where_it_stopped(sql: Env) -> None:
    start, depths = OraclePrefix(share=0.99), set[int]()
    for seed in range(6):
        sql.reset(seed=seed)
        turns = start.begin(sql, seed, rng(seed))
        core, ended, info = core_of(sql), False, dict[str, Any]()
        assert core.episode.turns == len(turns)
        assert [m for turn in turns for m in turn.messages] == [
            m for m in core.messages if m["role"] == "tool"
        ]
        while not ended:
            *_, terminated, truncated, info = sql.step(core.oracle())
            ended = terminated or truncated
        assert info["success"]
        depths.add(len(turns))
    assert len(depths) > 1


# --------------------------------------------------------------------------------- archive


def play(env: Env, tree: Tree, actions: Sequence[str], parent: int = 0) -> int:
    """Add the steps of these actions to a tree; return the last node."""
    for action in actions:
        text, reward, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
        parent = tree.add(
            parent, action_text=action, observation_text=text, reward=float(reward),
            action_ids=[ord(c) for c in action], action_logps=[-1.0] * len(action),
            observation_ids=[] if ended else [len(text)],
            terminated=terminated, truncated=truncated,
        ).id  # fmt: skip
    return parent


def grown(env: Env, start: StartState, seed: int, *episodes: Sequence[str]) -> list[Tree]:
    """Return a question with a chain for each episode, as a run would grow it."""
    assert any(start.question(seed, EASY, rng(seed, k)) is None for k in range(99))
    trees: list[Tree] = []
    for number, actions in enumerate(episodes):
        env.reset(seed=seed, options=EASY)
        tree = Tree("q", tree_id=number, difficulty=1, question_seed=seed)
        tree.add(None, observation_ids=[1])
        play(env, tree, actions)
        trees.append(tree)
    return trees


GOOD, BAD = ("green", "green", "green", "stop"), ("red", "red", "stop")


def test_a_question_is_exchanged_for_a_state_of_a_good_episode() -> None:
    env, start = Guided(), Archive(share=0.99)
    trees = grown(env, start, 7, BAD, GOOD)
    start.observe([trees])
    assert start.question(8, EASY, rng(1)) == (7, EASY)
    env.reset(seed=7, options=EASY)
    turns = start.begin(env, 7, rng(2))
    assert 1 <= len(turns) <= 3 and env.episode.turns == len(turns) and not env.episode.ended
    for turn, node in zip(turns, trees[1].nodes[1:], strict=False):
        assert turn.action == "green" == node.action_text
        assert (turn.ids, turn.observation_ids) == (node.action_ids, node.observation_ids)
        assert "\n".join(m["content"] for m in turn.messages) == node.observation_text


def archived(start: Archive) -> list[dict[str, Any]]:
    return cast(Any, start.state())["entries"]


def test_the_states_of_the_best_episode_are_drawn_from_alike() -> None:
    env, depths, firsts = Guided(turns=4), Counter[int](), Counter[str]()
    for seed in range(60):
        start = Archive()
        start.observe([grown(env, start, seed, GOOD, ("red", "green", "green", "green"), BAD)])
        [entry] = archived(start)
        depths[len(entry["turns"])] += 1
        firsts[entry["turns"][0]["action"]] += 1
    assert set(depths) == {1, 2, 3} and min(depths.values()) > 8
    assert set(firsts) == {"green", "red"} and min(firsts.values()) > 15


def test_a_share_of_the_questions_is_exchanged() -> None:
    env, start = Guided(), Archive(share=0.3)
    start.observe([grown(env, start, seed, GOOD) for seed in (1, 2)])
    chosen = Counter(start.question(seed, EASY, rng(seed)) is None for seed in range(100, 600))
    assert abs(chosen[False] - 150) < 40
    drawn = {(start.question(seed, EASY, rng(seed)) or (0,))[0] for seed in range(100, 200)}
    assert drawn == {0, 1, 2}


def test_questions_of_other_options_are_left_alone() -> None:
    env, start = Guided(), Archive(share=0.99)
    start.observe([grown(env, start, 1, GOOD)])
    assert {start.question(seed, {"difficulty": 2}, rng(seed)) for seed in range(20)} == {None}
    assert {start.question(seed, {}, rng(seed)) for seed in range(20)} == {None}


def test_a_question_that_is_not_archived_begins_at_its_reset() -> None:
    env, start = Guided(), Archive()
    start.observe([grown(env, start, 1, GOOD)])
    env.reset(seed=2, options=EASY)
    before = env.state_hash()
    assert start.begin(env, 2, rng()) == [] and env.state_hash() == before


def test_bad_short_failed_and_continued_episodes_give_no_state() -> None:
    env, start = Guided(), Archive()
    continued = grown(env, start, 3, GOOD)
    continued[0].start, continued[0].start_turns = "archive", 2
    failed = grown(env, start, 4, GOOD)
    failed[0].nodes[-1].failure = "grader"
    start.observe([grown(env, start, 1, BAD), grown(env, start, 2, ("stop",)), continued, failed])
    assert archived(start) == []


def test_the_best_and_newest_are_kept() -> None:
    env, start = Guided(), Archive(capacity=2)
    episodes = {1: GOOD, 2: ("green", "red", "stop"), 3: GOOD[1:], 4: ("green", "red", "stop")}
    seen: list[list[int]] = []
    for seed, actions in episodes.items():
        start.observe([grown(env, start, seed, actions)])
        seen.append([entry["question_seed"] for entry in archived(start)])
    assert seen == [[1], [1, 2], [1, 3], [1, 3]]
    worse = Archive(capacity=1)
    for seed in (5, 6):
        worse.observe([grown(env, worse, seed, GOOD)])
    assert [entry["question_seed"] for entry in archived(worse)] == [6], "of equal ones the newest"


def test_a_replay_that_goes_another_way_is_dropped_and_counted() -> None:
    env, start = Guided(turns=12), Archive()
    trees = grown(env, start, 1, GOOD)
    trees[0].nodes[1].observation_text = "die 9"
    start.observe([trees])
    env.reset(seed=1, options=EASY)
    before = env.state_hash()
    assert start.begin(env, 1, rng()) == [] and env.state_hash() == before
    assert len(archived(start)) == 1, "until the step is over all questions choose among the same"
    start.observe([])
    assert start.state() == {"entries": [], "dropped": 1}


def test_an_episode_that_ends_in_its_replay_is_dropped() -> None:
    env, start = Guided(), Archive()
    start.observe([grown(env, start, 1, GOOD)])
    short = Guided(turns=1)
    short.reset(seed=1, options=EASY)
    assert start.begin(short, 1, rng()) == [] and not short.episode.ended


def test_the_archive_survives_a_checkpoint() -> None:
    env, start = Guided(), Archive(share=0.5)
    start.observe([grown(env, start, seed, GOOD) for seed in (1, 2, 3)])
    resumed = through_json(start, Archive(share=0.5))
    for seed in range(30, 60):
        one, other = (each.question(seed, EASY, rng(seed)) for each in (start, resumed))
        assert one == other
    for each in (start, resumed):
        each.observe([grown(env, each, 5_000, GOOD)])
    assert resumed.state() == start.state()


def test_luck_that_does_not_show_is_of_no_matter(sql: Env) -> None:
    core, start = core_of(sql), Archive(share=0.99)
    start.question(3, EASY, rng())
    sql.reset(seed=3, options=EASY)
    core.restore(core.snapshot(), seed=99)
    tree = Tree("q", difficulty=1, question_seed=3)
    last = tree.add(None, observation_ids=[1])
    while not (last.terminated or last.truncated):
        last = tree.nodes[play(sql, tree, [core.oracle()], last.id)]
    start.observe([[tree]])
    sql.reset(seed=3, options=EASY)
    turns = start.begin(sql, 3, rng())
    assert [turn.action for turn in turns] == [
        n.action_text for n in tree.nodes[1 : len(turns) + 1]
    ]
    assert turns
