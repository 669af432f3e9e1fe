"""A fork of a rollout at a node after an INSERT sees the row; one before it does not."""

from typing import Any

from tests.toy_game import ScriptedEngine, scheduler
from treegrpo.credit import get_credit
from treegrpo.envs.registry import make
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.suite.sql.env import SQLEnv
from treegrpo.rollout import Question

COUNT = "SELECT COUNT(*) FROM log"


def test_forks_of_a_rollout_have_databases_of_their_own() -> None:
    made = make("treegrpo/SQL-v0")
    env = core_of(made)
    assert isinstance(env, SQLEnv)
    tasks = env.tasks("train")
    index = next(i for i, task in enumerate(tasks) if task.id.startswith("restock-"))
    options: dict[str, Any] = {"split": "train", "index": index}
    env.reset(seed=0, options=options)
    update, insert = (step.arguments["sql"] for step in env.task.data["plan"] if step.writes)
    assert insert.startswith("INSERT INTO log")
    plan = [env.encode_call("query", sql=sql) for sql in (update, insert)]
    submit, count = env.encode_call("submit", sql="done"), env.encode_call("query", sql=COUNT)
    said: list[str] = []

    def script(text: str, seed: int) -> str:
        """Follow the plan in the trunk; every fork counts the rows, then submits."""
        said.append(text)
        if len(said) <= 3:
            return [*plan, submit][len(said) - 1]
        return submit if COUNT in text else count

    engine = ScriptedEngine(script)
    grower, pool = scheduler(
        engine, made, trunks=1, forks=12, max_action_tokens=1000, max_context_tokens=10**6
    )
    grown = grower.grow([Question(0, options)])
    [[tree]] = grown.questions
    trunk_update, trunk_insert, trunk_end = 1, 2, 3
    assert tree.episode_reward(trunk_end) == 1.0
    counts: dict[int, set[str]] = {}
    rewards: dict[int, set[float]] = {}
    for leaf in tree.leaves():
        above, counting = tree.path(leaf)[-3:-1]
        if leaf == trunk_end:
            continue
        counts.setdefault(above, set()).add(tree.nodes[counting].observation_text)
        rewards.setdefault(above, set()).add(tree.episode_reward(leaf))
    assert set(counts) == {0, trunk_update, trunk_insert}, "twelve draws hit every node"
    rows = {node: int(text.split()[-1]) for node, [text] in counts.items()}
    assert rows[0] == rows[trunk_update] == rows[trunk_insert] - 1
    assert rewards == {0: {0.0}, trunk_update: {0.0}, trunk_insert: {1.0}}
    assert tree.value(trunk_insert) == 1.0 and (tree.value(0) or 0) < 1.0
    [credit] = get_credit("group")([tree])
    assert all((row[0] > 0) == (tree.episode_reward(leaf) == 1.0) for leaf, row in credit.items())
    assert engine.live_contexts == pool.lent == 0
