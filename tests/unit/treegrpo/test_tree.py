"""treegrpo.tree: shape, counts, hashes and the JSON form of rollout trees."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegrpo.envs.errors import DataFileError, TreegrpoError
from treegrpo.tree import Tree, node_hash, path_hash, read_trees, sharing_ratio


def grown() -> Tree:
    """A trunk 0-1-2-3 with a fork 4-5 under node 1 and a fork 6 under the root."""
    tree = Tree("q7", tree_id=2, difficulty=3, question="Who?", step=5)
    tree.add(None, observation_ids=[1, 2, 3, 4], observation_text="prompt")
    tree.add(0, action_ids=[5, 6], action_logps=[-0.5, -0.25], observation_ids=[7], reward=0.5)
    tree.add(1, action_ids=[8], action_logps=[-1.0], observation_ids=[9, 9])
    tree.add(
        2,
        action_ids=[10, 11, 12],
        action_logps=[-0.1, -0.2, -0.3],
        reward=1.0,
        terminated=True,
        end_reason="answered",
        action_text="\u00e9nd\n",
        state_hash="ab",
        weight_version=4,
    )
    tree.add(1, action_ids=[8], action_logps=[-1.0], observation_ids=[13])
    tree.add(4, action_ids=[14], action_logps=[-2.0], reward=-0.25, truncated=True)
    tree.add(0, action_ids=[15, 16], action_logps=[-3.0, -4.0], failure="tool", truncated=True)
    return tree


def test_paths_leaves_and_depths() -> None:
    tree = grown()
    assert tree.leaves() == [3, 5, 6]
    assert [tree.path(leaf) for leaf in tree.leaves()] == [[0, 1, 2, 3], [0, 1, 4, 5], [0, 6]]
    assert [node.depth for node in tree.nodes] == [0, 1, 2, 3, 2, 3, 1]
    assert [node.children for node in tree.nodes] == [[1, 6], [2, 4], [3], [], [5], [], []]
    assert tree.leaves_below(1) == [3, 5]
    assert tree.leaves_below(5) == [5]
    assert tree.leaf_counts() == [3, 2, 1, 1, 1, 1, 1]


def test_a_bare_root_has_no_leaf() -> None:
    tree = Tree("q")
    tree.add(None, observation_ids=[1, 2])
    assert tree.leaves() == []
    assert tree.leaf_counts() == [0]
    assert (tree.unique_tokens, tree.flat_tokens, tree.sampled_tokens) == (2, 0, 0)
    assert tree.value(0) is None


def test_rewards_add_along_the_path_and_average_over_scored_leaves() -> None:
    tree = grown()
    assert [tree.episode_reward(leaf) for leaf in tree.leaves()] == [1.5, 0.25, 0.0]
    assert tree.scored_leaves() == [3, 5]
    assert tree.value(0) == 0.875
    assert tree.value(1) == 0.875
    assert tree.value(4) == 0.25
    assert tree.value(6) is None


def test_a_failure_of_the_policy_is_an_outcome() -> None:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for failure in ("policy", "tool", "sandbox", "environment", "grader", None):
        tree.add(0, reward=1.0, truncated=True, failure=failure)  # type: ignore[arg-type]
    assert tree.scored_leaves() == [1, 6]


def test_token_counts() -> None:
    tree = grown()
    assert tree.unique_tokens == 4 + 3 + 3 + 3 + 2 + 1 + 2
    assert tree.flat_tokens == (4 + 3 + 3 + 3) + (4 + 3 + 2 + 1) + (4 + 2)
    assert tree.sampled_tokens == 2 + 1 + 3 + 1 + 1 + 2


def test_sharing_ratio_pools_tokens_of_grown_trees() -> None:
    bare, chain = Tree("q"), Tree("q")
    bare.add(None, observation_ids=[1] * 1000)
    chain.add(None, observation_ids=[1] * 10)
    chain.add(0, action_ids=[2, 3], action_logps=[-1.0, -1.0], terminated=True)
    assert sharing_ratio([chain, bare]) == 1.0
    assert sharing_ratio([bare]) == 1.0
    assert sharing_ratio([]) == 1.0
    assert sharing_ratio([grown(), chain]) == pytest.approx((29 + 12) / (18 + 12))


def test_add_owns_plain_copies() -> None:
    tree = Tree("q")
    prompt = [1, 2]
    tree.add(None, observation_ids=prompt)
    prompt.append(3)
    node: Any = tree.add(
        0,
        action_ids=np.array([5]),  # type: ignore[arg-type]
        action_logps=np.array([-0.5]),  # type: ignore[arg-type]
        reward=np.float64(1),
        terminated=np.bool_(True),  # type: ignore[arg-type]
    )
    assert tree.nodes[0].observation_ids == [1, 2]
    assert [type(x) for x in (node.action_ids[0], node.reward, node.terminated)] == [
        int,
        float,
        bool,
    ]
    assert Tree.from_json(tree.to_json()).nodes[1].action_ids == [5]


@pytest.mark.parametrize(
    ("parent", "step", "message"),
    [
        (None, {"observation_ids": [1]}, "second root"),
        (99, {}, "Node 99 asked for, but the tree has 7 nodes"),
        (-1, {}, "Node -1 asked for"),
        (3, {}, r"ended there \(answered\)"),
        (5, {}, "ended there"),
        (2, {"action_ids": [1], "action_logps": []}, "1 action_ids but 0 action_logps"),
        (2, {"action_ids": [1], "action_logps": [float("nan")]}, "not finite"),
        (2, {"reward": float("inf")}, "not finite"),
        (2, {"observation_ids": [3, -100]}, "a token id below 0"),
        (2, {"action_ids": [-1], "action_logps": [-1.0]}, "a token id below 0"),
        (2, {"observation_ids": [1], "terminated": True}, "after the end"),
        (2, {"observation_ids": [1], "truncated": True}, "after the end"),
    ],
)
def test_add_refuses(parent: int | None, step: Any, message: str) -> None:
    tree = grown()
    before = tree.to_json()
    with pytest.raises(TreegrpoError, match=message):
        tree.add(parent, **step)
    assert tree.to_json() == before


@pytest.mark.parametrize(
    "step", [{}, {"observation_ids": [1], "action_ids": [2], "action_logps": [-1.0]}]
)
def test_a_root_must_be_a_prompt(step: Any) -> None:
    with pytest.raises(TreegrpoError, match="not a prompt"):
        Tree("q").add(None, **step)


def test_hash_chains_every_id_from_the_root() -> None:
    tree = grown()
    segments = [(tree.nodes[i].action_ids, tree.nodes[i].observation_ids) for i in tree.path(5)]
    assert path_hash(segments) == tree.nodes[5].content_hash
    assert tree.nodes[2].content_hash != tree.nodes[4].content_hash
    assert node_hash("", [1, 2], []) != node_hash("", [12], [])
    assert node_hash("", [1], [2]) != node_hash("", [1, 2], [])
    assert node_hash("", [1], [2, 3]) != node_hash("", [1, 2], [3])
    assert node_hash("", [1], []) != node_hash(tree.nodes[0].content_hash, [1], [])
    flipped = [([*actions], [*observed]) for actions, observed in segments]
    flipped[0][1][0] += 1
    assert path_hash(flipped) != tree.nodes[5].content_hash


def test_check_ids_names_the_changed_node() -> None:
    tree = grown()
    tree.check_ids()
    tree.nodes[4].observation_ids[0] += 1
    with pytest.raises(TreegrpoError, match="the ids of node 4 have changed"):
        tree.check_ids()
    tree = grown()
    tree.nodes[3].action_ids.pop()
    with pytest.raises(TreegrpoError, match="the ids of node 3 have changed"):
        tree.check_ids()


def test_json_round_trip_is_exact_and_one_ascii_line() -> None:
    tree = grown()
    tree.nodes[1].advantage = 1 / 3
    text = tree.to_json()
    assert text.isascii()
    assert "\n" not in text
    again = Tree.from_json(text)
    assert again == tree
    assert again.to_json() == text
    again.check_ids()


def test_json_has_the_documented_fields() -> None:
    row = json.loads(grown().to_json())
    assert list(row) == [
        "question_id",
        "tree_id",
        "difficulty",
        "step",
        "question",
        "question_seed",
        "start",
        "start_turns",
        "nodes",
    ]
    assert list(row["nodes"][3]) == [
        "id",
        "parent",
        "depth",
        "action_text",
        "observation_text",
        "reward",
        "terminated",
        "truncated",
        "end_reason",
        "failure",
        "state_hash",
        "tool_calls",
        "action_ids",
        "action_logps",
        "observation_ids",
        "weight_version",
        "advantage",
    ]
    assert row["nodes"][3]["state_hash"] == "ab"
    assert row["nodes"][3]["weight_version"] == 4


def put(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(row: Any) -> None:
        for part in path[:-1]:
            row = row[part]
        row[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (put("step", value="5"), r"step: .*found '5'"),
        (put("surprise", value=1), "surprise: "),
        (lambda row: row.pop("question_id"), "question_id: "),
        (put("nodes", value=[]), "nodes: "),
        (put("nodes", 2, "reward", value="1"), r"nodes\[2\]\.reward: "),
        (put("nodes", 2, "reward", value=float("nan")), r"nodes\[2\]\.reward: "),
        (put("nodes", 2, "action_ids", 0, value=1.5), r"nodes\[2\]\.action_ids\[0\]: "),
        (put("nodes", 2, "failure", value="gremlins"), r"nodes\[2\]\.failure: "),
        (put("nodes", 2, "extra", value=0), r"nodes\[2\]\.extra: "),
        (put("nodes", 2, "action_logps", value=[]), r"nodes\[2\]: .*1 action_ids but 0"),
        (put("nodes", 2, "id", value=1), r"nodes\[2\]\.id: must be 2 here, found 1"),
        (put("nodes", 2, "depth", value=1), r"nodes\[2\]\.depth: must be 2 here, found 1"),
        (put("nodes", 2, "parent", value=6), r"nodes\[2\]: Node 6 asked for"),
        (put("nodes", 2, "parent", value=2), r"nodes\[2\]: Node 2 asked for"),
        (put("nodes", 6, "parent", value=5), r"nodes\[6\]: .*ended there"),
        (put("nodes", value=["x" * 500]), r"nodes\[0\]: .{1,200}$"),
    ],
)
def test_from_json_names_line_and_field(change: Callable[[Any], None], field: str) -> None:
    row = json.loads(grown().to_json())
    change(row)
    with pytest.raises(DataFileError, match=f"^trees.jsonl line 9: {field}"):
        Tree.from_json(json.dumps(row), where="trees.jsonl line 9")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "7"])
def test_from_json_survives_hostile_text(text: str) -> None:
    with pytest.raises(DataFileError, match=r"^line 1: "):
        Tree.from_json(text, where="line 1")


def test_read_trees(tmp_path: Path) -> None:
    file = tmp_path / "trees.jsonl"
    file.write_text(grown().to_json() + "\n" + grown().to_json() + "\n", encoding="utf-8")
    assert list(read_trees(file)) == [grown(), grown()]


def test_read_trees_names_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trees.jsonl"
    file.write_text(grown().to_json() + '\n{"question_id": ', encoding="utf-8")
    reader = read_trees(file)
    assert next(reader) == grown()
    with pytest.raises(DataFileError, match=r"trees\.jsonl line 2: .* one line of JSON"):
        next(reader)
    monkeypatch.setattr("treegrpo.tree.MAX_LINE_CHARS", 50)
    with pytest.raises(DataFileError, match=r"line 1: longer than 50"):
        next(read_trees(file))


def test_read_trees_without_a_readable_file(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="cannot be read"):
        next(read_trees(tmp_path / "none.jsonl"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataFileError, match="cannot be read"):
        next(read_trees(tmp_path / "binary"))


def test_trees_and_credit_need_no_torch() -> None:
    code = "import sys, treegrpo.tree, treegrpo.credit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reorder_keeps_the_tree_and_its_hashes() -> None:
    tree = grown()
    lines = {tuple(tree.nodes[i].content_hash for i in tree.path(leaf)) for leaf in tree.leaves()}
    order = sorted(range(len(tree.nodes)), key=lambda i: (tree.nodes[i].depth, -i))
    new = tree.reorder(order)
    assert [new[old] for old in order] == list(range(len(order)))
    again = {tuple(tree.nodes[i].content_hash for i in tree.path(leaf)) for leaf in tree.leaves()}
    assert again == lines
    tree.check_ids()
    assert all(node.children == sorted(node.children) for node in tree.nodes)
    for wrong in ([0], order[::-1], [0, *range(len(order) - 1)]):
        with pytest.raises(TreegrpoError, match="a parent before its children"):
            tree.reorder(wrong)
