"""Trees, episodes and runs for the tests of the viewer, made by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from treegrpo.leaderboards.site.viewer_model import Outcome, ViewerNode, ViewerTree
from treegrpo.tree import Tree

HOSTILE = (
    "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 2'>{{ 7 * 7 }}"
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x00\x9b2J\u202egnp.exe\u2066\ud800</style>\"'>"
    "<svg/onload=window.owned=3>javascript:window.owned=4"
)
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "truncated", "failed")


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def wide_tree(
    num_nodes: int, seed: int = 0, title: str = "Who is the mayor of Sund ?"
) -> ViewerTree:
    """Return a tree of exactly so many steps, nine levels deep, with credit on every step."""
    rng = random.Random(seed)
    nodes = [ViewerNode("start", None, 0, observation="Use the tools.\n" + title)]
    for number in range(1, num_nodes):
        near = [node for node in nodes[-40:] if node.step < 9] or nodes[:1]
        parent = rng.choice(near)
        query = f"home of {rng.choice(['Maren', 'Tove', 'Ilya'])} {number}"
        nodes.append(
            ViewerNode(
                id=f"0.{number}",
                parent=parent.id,
                step=parent.step + 1,
                action="I look it up.\n" + call("search", query=query, k=3),
                observation="The home of Maren is Sund. " * rng.randint(1, 9),
                credit=rng.gauss(0, 1),
                value=rng.random(),
                reward=0.0,
                tokens=rng.randint(9, 40),
                tool_calls=1,
                state_hash=f"{number:064x}",
            )
        )
    return ViewerTree(title, tuple(_ended(nodes)))


def _ended(nodes: list[ViewerNode]) -> list[ViewerNode]:
    inner = {node.parent for node in nodes}
    fields = [name for name in ViewerNode.__dataclass_fields__ if name != "outcome"]
    return [
        node
        if node.id in inner
        else ViewerNode(
            **{name: getattr(node, name) for name in fields}, outcome=OUTCOMES[number % 4]
        )
        for number, node in enumerate(nodes)
    ]


def hostile_tree() -> ViewerTree:
    """Return a tree whose every text is hostile, with an observation of a million characters."""
    return ViewerTree(
        HOSTILE,
        (
            ViewerNode("start", None, 0, observation=HOSTILE),
            ViewerNode(
                HOSTILE,
                "start",
                1,
                action=HOSTILE + call(HOSTILE, **{HOSTILE: HOSTILE}),
                observation=HOSTILE + "x" * 1_000_000,
                reward_parts={HOSTILE: HOSTILE},
                outcome="failed",
                end_reason=HOSTILE,
                failure=HOSTILE,
                state_hash=HOSTILE,
            ),
        ),
        ((HOSTILE, HOSTILE),),
    )


def question_trees(step: int = 0, question: str = "Who is the mayor of Sund ?") -> list[Tree]:
    r"""Return two trees of one question: rewards 1 and 0 below a fork, and 1 on a chain.

    tree 0:  prompt -- a -- b (reward 1)        tree 1:  prompt -- d (reward 1)
                         \- c (reward 0)
    """
    first = Tree(f"q-{question}", 0, 2, question, step)
    prompt = "Use the tools.\n" + question
    first.add(None, observation_ids=[1, 2], observation_text=prompt)
    first.add(
        0, action_text="Look." + call("search", query="Sund"), action_ids=[5, 6],
        action_logps=[-0.1, -0.2], observation_ids=[7], observation_text="Maren.",
        state_hash="a" * 64, tool_calls=1,
    )  # fmt: skip
    for text, reward in (("Maren", 1.0), ("Tove", 0.0)):
        first.add(
            1, action_text=call("answer", text=text), action_ids=[8], action_logps=[-0.3],
            reward=reward, terminated=True, end_reason="answered",
        )  # fmt: skip
    second = Tree(f"q-{question}", 1, 2, question, step)
    second.add(None, observation_ids=[1, 2], observation_text=prompt)
    second.add(
        0, action_text=call("answer", text="Maren"), action_ids=[8], action_logps=[-0.3],
        reward=1.0, terminated=True, end_reason="answered",
    )  # fmt: skip
    for node, credit in zip(first.nodes[1:], (0.0, 0.5, -0.5), strict=True):
        node.advantage = credit
    second.nodes[1].advantage = 0.25
    return [first, second]


def write_run(folder: Path, num_steps: int = 3, seed: int = 0) -> Path:
    """Return a training run's folder: rows for every step, trees for the last."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    metrics = [
        {
            "step": step,
            "success_rate": 0.2 + 0.6 * step / num_steps + 0.05 * rng.random(),
            "reward_mean": 0.2 + 0.6 * step / num_steps,
            "reset_leaves": 8,
            "mixed_share": 0.5,
            "sampled_tokens": 1000,
            "tool_calls": 50,
            "sampled_tokens_total": 1000 * (step + 1),
            "tool_calls_total": 50 * (step + 1),
            "sharing_ratio": 1.75,
            "max_abs_log_ratio": 1e-6 * (1 + rng.random()),
            "clip_share": 0.01,
            "grad_norm": 0.5,
        }
        for step in range(num_steps)
    ]
    _write_rows(folder / "metrics.jsonl", metrics)
    timings = [{"step": step, "total": 2.0} for step in range(num_steps)]
    _write_rows(folder / "timings.jsonl", timings)
    trees = question_trees(num_steps - 1)
    (folder / "trees.jsonl").write_text("".join(tree.to_json() + "\n" for tree in trees))
    config = {"config": {"env": "treegrpo/SearchQA-v0", "seed": seed, "steps": num_steps}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
