"""treegrpo.rollout.scheduler: forks, budgets, failures, and what is given back."""

import threading
from typing import Any, ClassVar

import gymnasium
import pytest

from tests.toy_game import (
    ID,
    SLOW_ID,
    Game,
    RestlessEngine,
    Script,
    ScriptedEngine,
    SlowGame,
    random_words,
    scheduler,
)
from treegrpo.engine.base import Context, SamplingParams
from treegrpo.envs.errors import UnknownSplit
from treegrpo.envs.registry import make
from treegrpo.rollout import Grown, Question
from treegrpo.rollout.expansion import Expansion, Reached
from treegrpo.tree import Node

SPLIT = {"split": "train"}
QUESTIONS = [Question(seed, SPLIT) for seed in range(3)]


def grow(
    script: Script, questions: list[Question] = QUESTIONS, *, turns: int = 3, **changes: Any
) -> Grown:
    """Grow trees, and see that everything lent came back."""
    engine = ScriptedEngine(script)
    made, pool = scheduler(engine, make(ID, turns=turns), **changes)
    grown = made.grow(questions)
    assert engine.live_contexts == 0 and pool.lent == 0
    return grown


def leaves(grown: Grown) -> list[Node]:
    trees = [tree for question in grown.questions for tree in question]
    return [tree.nodes[leaf] for tree in trees for leaf in tree.leaves()]


def once_in(number: int, word: str, otherwise: str = "green") -> Script:
    return lambda text, seed: word if seed % number == 0 else otherwise


def test_every_tree_gets_its_forks_and_costs_count_once_per_edge() -> None:
    grown = grow(random_words(["red", "green", "call"]), trunks=3, forks=2, rounds=2)
    trees = [tree for question in grown.questions for tree in question]
    assert [len(question) for question in grown.questions] == [3, 3, 3]
    assert all(len(tree.leaves()) == 5 for tree in trees)
    assert len(grown.fork_depths) == 9 * 4
    assert grown.sampled_tokens == sum(tree.sampled_tokens for tree in trees)
    calls = sum(node.action_text == "call" for tree in trees for node in tree.nodes)
    assert grown.tool_calls == calls > 0
    assert not grown.failures and not grown.unstarted


def test_a_fork_goes_on_where_its_node_stands() -> None:
    """All three turns of every path are counted, and the reward is that of the whole path."""
    grown = grow(random_words(["red", "green"]), forks=4, rounds=2)
    for tree in (tree for question in grown.questions for tree in question):
        for leaf in tree.leaves():
            words = [tree.nodes[i].action_text for i in tree.path(leaf)[1:]]
            assert len(words) == 3
            assert tree.episode_reward(leaf) == pytest.approx(words.count("green") / 3)


@pytest.mark.parametrize(
    ("said", "first_observed"), [("red", ord("d")), ("red\x01", 0), ("greengreen", 0)]
)
def test_a_turn_is_closed_however_it_ended(said: str, first_observed: int) -> None:
    """By the end-of-turn token, by end-of-text, or by the limit of tokens."""
    grown = grow(lambda text, seed: said, turns=2)
    nodes = [node for question in grown.questions for tree in question for node in tree.nodes[1:]]
    observed = {node.observation_ids[0] for node in nodes if node.observation_ids}
    assert observed == {first_observed}


def dice(grown: Grown, turn: int) -> list[list[str]]:
    """Return, by question, what the die showed in a turn."""
    return [
        [node.observation_text for tree in question for node in tree.nodes if node.depth == turn]
        for question in grown.questions
    ]


@pytest.mark.parametrize("noise", ["inherit", "shared", "fresh"])
def test_noise(noise: str) -> None:
    grown = grow(lambda text, seed: "red", trunks=8, forks=6, turns=2, noise=noise)
    first = dice(grown, 1)
    if noise == "shared":
        assert all(len(set(shown)) == 1 for shown in first)
        return
    assert all(len(set(shown)) > 1 for shown in first), "trunks have dice of their own"
    per_tree = [
        {node.observation_text for node in tree.nodes if node.depth == 1}
        for question in grown.questions
        for tree in question
    ]
    if noise == "inherit":
        assert all(len(shown) == 1 for shown in per_tree), "forks go on with their parent's"
    else:
        assert any(len(shown) > 1 for shown in per_tree)


# ---------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize("limit", [3, 8, 13, 30, 47, 200])
def test_the_token_budget_of_a_question_is_never_exceeded(limit: int) -> None:
    grown = grow(random_words(["red", "green"]), max_sampled_tokens_per_question=limit)
    for question in grown.questions:
        assert sum(tree.sampled_tokens for tree in question) <= limit
    whole = grow(random_words(["red", "green"]))
    assert (grown.sampled_tokens == whole.sampled_tokens) == (limit == 200)


def test_a_branch_cut_by_the_budget_is_a_truncated_leaf() -> None:
    grown = grow(
        lambda text, seed: "green", max_sampled_tokens_per_question=20, max_action_tokens=8
    )
    cut = [leaf for leaf in leaves(grown) if leaf.end_reason == "budget"]
    assert cut and all(leaf.truncated and leaf.failure is None for leaf in cut)
    assert all(not leaf.action_ids and leaf.reward == 0.0 for leaf in cut)


def test_steps_in_flight_do_not_use_up_what_they_may_not_need() -> None:
    """Two trunks of 3 turns of 4 tokens fit into 24, though two may reserve 16 at a time."""
    grown = grow(
        lambda text, seed: "red", trunks=2, forks=0, rounds=0, max_sampled_tokens_per_question=29
    )
    assert grown.sampled_tokens == 3 * 24
    assert {leaf.end_reason for leaf in leaves(grown)} == {"turn_limit"}


def test_a_branch_that_sampled_nothing_leaves_no_leaf() -> None:
    grown = grow(lambda text, seed: "red", forks=3, rounds=2, max_sampled_tokens_per_question=24)
    assert grown.unstarted["budget"] > 0
    for tree in (tree for question in grown.questions for tree in question):
        assert all(any(tree.nodes[i].action_ids for i in tree.path(leaf)) for leaf in tree.leaves())
    nothing = grow(lambda text, seed: "red", max_sampled_tokens_per_question=7)
    assert nothing.sampled_tokens == 0 and not leaves(nothing)
    assert nothing.unstarted["budget"] == 6


def test_the_tool_call_budget_is_hard_and_told_as_ours() -> None:
    grown = grow(lambda text, seed: "call", max_tool_calls_per_question=4)
    assert grown.tool_calls == 3 * 4
    assert {leaf.end_reason for leaf in leaves(grown)} == {"budget"}
    free = grow(lambda text, seed: "call", turns=30)
    assert {leaf.end_reason for leaf in leaves(free)} == {"tool_call_limit"}


def test_the_budget_of_all_questions_together() -> None:
    engine = ScriptedEngine(random_words(["red", "green"]))
    made, _ = scheduler(engine, make(ID))
    for limit, served in ((7, 0), (15, 1), (50, 3), (100, 3)):
        grown = made.grow(QUESTIONS, max_sampled_tokens=limit)
        spent = [sum(tree.sampled_tokens for tree in question) for question in grown.questions]
        # Divided beforehand; no question may be left with less than one whole action.
        share = limit // served if served else 0
        assert [bool(tokens) for tokens in spent] == [True] * served + [False] * (3 - served)
        assert all(share - 8 < tokens <= share + 1 for tokens in spent[:served])
        assert grown.sampled_tokens <= limit
    assert engine.live_contexts == 0


def test_a_full_context_ends_the_episode() -> None:
    grown = grow(lambda text, seed: "green", turns=8, max_context_tokens=60)
    assert {leaf.end_reason for leaf in leaves(grown)} == {"context_limit"}
    too_short = grow(lambda text, seed: "green", max_context_tokens=10)
    assert too_short.unstarted["context_limit"] == 6 and not leaves(too_short)


# --------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("word", "who", "told"),
    [
        ("crash", "environment", "RuntimeError: the table fell over"),
        ("void", "grader", "the grader has no scale"),
        ("stuck", "environment", "OSError: the wire is hot"),
    ],
)
def test_a_failing_rollout_is_data(word: str, who: str, told: str) -> None:
    grown = grow(once_in(3, word), trunks=6, forks=3)
    failed = [leaf for leaf in leaves(grown) if leaf.failure is not None]
    sound = [leaf for leaf in leaves(grown) if leaf.failure is None]
    assert failed and sound
    assert {leaf.failure for leaf in failed} == {who}
    assert dict(grown.failures) == {who: len(failed)}
    for leaf in failed:
        assert leaf.end_reason == f"{who}_failed" and told in leaf.observation_text
        assert leaf.truncated and not leaf.has_outcome and leaf.reward == 0.0
    assert all(leaf.reward == 1.0 for leaf in sound), "a failure leaks into nobody else"


def test_every_rollout_may_fail() -> None:
    grown = grow(lambda text, seed: "crash")
    assert grown.failures["environment"] == len(leaves(grown)) > 0
    assert all(not tree.scored_leaves() for question in grown.questions for tree in question)


def test_a_failing_reset_costs_its_question_only() -> None:
    engine = ScriptedEngine(lambda text, seed: "green")
    made, pool = scheduler(engine, make(ID, broken_resets=50, disable_env_checker=True))
    grown = made.grow([Question(seed, SPLIT) for seed in range(20)])
    sizes = [len(question) for question in grown.questions]
    assert 0 < sizes.count(0) == grown.failures["environment"] < 20
    assert {leaf.end_reason for leaf in leaves(grown)} == {"turn_limit"}
    assert all(len(tree.leaves()) == 3 for question in grown.questions for tree in question)
    every, _ = scheduler(engine, make(ID, broken_resets=100))
    assert every.grow(QUESTIONS).failures["environment"] == 3
    assert engine.live_contexts == 0 and pool.lent == 0


def test_a_failing_fork_costs_its_branch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(lambda text, seed: "green")
    made, pool = scheduler(engine, make(ID), forks=3)
    take, calls = pool.take, [0]

    def sometimes(*args: Any, **keywords: Any) -> gymnasium.Env[str, str]:
        calls[0] += 1
        if calls[0] % 4 == 0:
            raise OSError("no more processes")
        return take(*args, **keywords)

    monkeypatch.setattr(pool, "take", sometimes)
    grown = made.grow(QUESTIONS)
    assert grown.failures["environment"] == calls[0] // 4 > 0
    assert len(leaves(grown)) == calls[0] - calls[0] // 4
    assert engine.live_contexts == 0 and pool.lent == 0


def test_wrong_options_are_the_users_to_mend() -> None:
    engine = ScriptedEngine(lambda text, seed: "green")
    made, pool = scheduler(engine, make(ID))
    with pytest.raises(UnknownSplit, match="nope"):
        made.grow([*QUESTIONS, Question(9, {"split": "nope"})])
    assert engine.live_contexts == 0 and pool.lent == 0


@pytest.mark.parametrize("at", [1, 2, 5])
def test_everything_is_given_back_when_an_exception_comes_through(at: int) -> None:
    said = [0]

    def script(text: str, seed: int) -> str:
        said[0] += 1
        if said[0] > 6 * at:
            raise KeyboardInterrupt
        return "green"

    engine = ScriptedEngine(script)
    made, pool = scheduler(engine, make(ID))
    with pytest.raises(KeyboardInterrupt):
        made.grow(QUESTIONS)
    assert engine.live_contexts == 0 and pool.lent == 0


def test_trees_do_not_wait_for_each_other() -> None:
    """A tree whose trunk is short is forked while the long one still runs."""
    engine = ScriptedEngine(lambda text, seed: "stop" if seed % 2 else "red")
    made, _ = scheduler(engine, make(ID, turns=6), trunks=4)
    made.grow(QUESTIONS)
    sequential = 2 * 6
    assert len(engine.batches) < sequential or max(engine.batches[1:]) > 6


def test_nobody_waits_for_the_environment_of_another_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first question's environments answer only when all others have done all their steps."""
    monkeypatch.setattr(SlowGame, "mean_s", 0.0)
    script = random_words(["red", "green"])

    def run() -> Grown:
        made, _ = scheduler(RestlessEngine(script, 3), make(SLOW_ID, turns=3), threads=32)
        return made.grow(QUESTIONS)

    first, *others = run().questions
    steps = sum(len(tree.nodes) - 1 for trees in others for tree in trees)
    done, asked, lock = threading.Event(), [0], threading.Lock()

    def wait(game: Game) -> None:
        if game.task.id == first[0].question_id:
            assert done.wait(20.0), "somebody waits for this environment"
            return
        with lock:
            asked[0] += 1
            if asked[0] == steps:
                done.set()

    monkeypatch.setattr(SlowGame, "before", wait)
    grown = run()
    assert done.is_set() and not grown.failures
    assert [tree.to_json() for tree in grown.questions[0]] == [tree.to_json() for tree in first]


def test_memory_that_is_short_sends_the_deepest_first() -> None:
    class Noting(ScriptedEngine):
        """Has room for some rows, which all end together."""

        max_rows: ClassVar[int] = 0
        depths: ClassVar[list[int]] = []

        def admits(self, context: Context, max_tokens: int) -> bool:
            return self.submitted < self.max_rows

        def submit(self, context: Context, params: SamplingParams, seed: int) -> None:
            super().submit(context, params, seed)
            self.depths.append(context.length)

    def order(max_rows: int) -> list[int]:
        Noting.depths.clear()
        Noting.max_rows = max_rows
        engine = Noting(lambda text, seed: "red")
        made, _ = scheduler(engine, make(ID), trunks=6, forks=0, rounds=0)
        made.grow(QUESTIONS[:1])
        return list(Noting.depths)

    assert order(100) == sorted(order(100)), "with room for all, the widest goes first"
    short = order(2)
    finished = short.index(max(short))
    assert short.count(min(short)) == 6 and short[finished:].count(min(short)) > 0
    assert finished < 12, "with little memory some episode ends before others have begun"


@pytest.mark.parametrize("max_live", [1, 2, 5])
def test_no_more_environments_live_than_may(max_live: int, monkeypatch: pytest.MonkeyPatch) -> None:
    most = [0]
    made, pool = scheduler(
        RestlessEngine(random_words(["red", "green"]), 1),
        make(SLOW_ID, turns=3),
        trunks=3,
        max_live=max_live,
    )
    monkeypatch.setattr(SlowGame, "mean_s", 0.0)
    monkeypatch.setattr(SlowGame, "before", lambda game: most.append(pool.lent))
    grown = made.grow(QUESTIONS)
    assert max(most) <= max_live and sum(len(t.leaves()) for q in grown.questions for t in q) == 27


def test_a_policy_that_reads_entropies_forks_before_the_first_child_is_answered() -> None:
    seen: list[tuple[int, tuple[float, ...], int]] = []

    class Watching(Expansion):
        needs_entropy: ClassVar[bool] = True

        def at_node(self, reached: Reached) -> int:
            seen.append((len(reached.path), reached.entropies, len(reached.path[-1].children)))
            return int(reached.is_trunk)

        def max_branches(self, forks: int, rounds: int) -> int | None:
            return None

    engine = ScriptedEngine(lambda text, seed: "red")
    made, _ = scheduler(engine, make(ID), trunks=1, expansion=Watching())
    [[tree]] = made.grow(QUESTIONS[:1]).questions
    assert len(tree.leaves()) == 4 and len(seen) == 1 + 2 + 3
    assert all(depth == len(entropies) and not children for depth, entropies, children in seen)
    assert engine.live_contexts == 0


def test_leaves_of_a_time_limit_wrapper_have_a_reason() -> None:
    engine = ScriptedEngine(lambda text, seed: "green")
    made, _ = scheduler(engine, make(ID, turns=8, max_episode_steps=2))
    assert {leaf.end_reason for leaf in leaves(made.grow(QUESTIONS))} == {"step_limit"}
