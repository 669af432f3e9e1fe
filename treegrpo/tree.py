"""Rollout trees: what was sampled, what the environment answered, what it was worth.

One tree holds every rollout that grew from one trunk. Its root is the prompt; every other
node is one whole agent step: the sampled ids, then the environment's ids, which end with the
next generation prompt. A leaf is a node below the root without children: an episode's end.
Nodes stand in the order they were added, so a parent's id is always below its children's.

Token in, token out: `add` keeps a hash of the ids it was given, chained from the root.
`check_ids` and `path_hash` prove later that the ids to be trained are the ids sampled.

Pure Python, no torch. A question with M trunks is M trees with the same `question_id`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from treegrpo.envs.digest import digest_bytes
from treegrpo.envs.errors import DataFileError, TreegrpoError

if TYPE_CHECKING:
    from treegrpo.envs.snapshot import Snapshot

Failure: TypeAlias = Literal["policy", "tool", "sandbox", "environment", "grader"]
"""Who failed. Only the policy's own failure is an outcome that it can learn from."""

BUDGET = "budget"
"""End reason of an episode that was cut because its question's budget was spent."""

MAX_LINE_CHARS = 256 * 2**20
"""Longest line of a tree file that is read (some ten million tokens)."""


class Step(TypedDict, total=False):
    """What `Tree.add` takes: all that happened in one step; what is not given is empty."""

    action_ids: list[int]
    """Token ids as sampled."""
    action_logps: list[float]
    """Log-prob of each of them under the policy that sampled it, in nats."""
    observation_ids: list[int]
    """The environment's ids, with the next generation prompt; none after the end."""
    action_text: str
    observation_text: str
    reward: float
    """Reward of this step alone."""
    terminated: bool
    truncated: bool
    end_reason: str | None
    failure: Failure | None
    state_hash: str
    tool_calls: int
    """Tool calls that the action made."""
    weight_version: int
    """Version of the weights that sampled the action."""
    snapshot: Snapshot | None
    """The environment after this step; lives in memory only."""


@dataclass(slots=True)
class Node:
    """One agent step, or the prompt; made by `Tree.add`, fields as in `Step`."""

    id: int
    parent: int | None
    depth: int
    action_ids: list[int] = field(default_factory=list[int])
    action_logps: list[float] = field(default_factory=list[float])
    observation_ids: list[int] = field(default_factory=list[int])
    action_text: str = ""
    observation_text: str = ""
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    end_reason: str | None = None
    failure: Failure | None = None
    state_hash: str = ""
    tool_calls: int = 0
    weight_version: int = 0
    snapshot: Snapshot | None = None
    advantage: float | None = None
    """Credit of this step averaged over the leaves below, for display."""
    content_hash: str = ""
    """`node_hash` of the ids as they were when the node was added."""
    children: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        """Own plain copies: environments hand over NumPy numbers, engines reuse their lists."""
        self.action_ids = [int(token) for token in self.action_ids]
        self.action_logps = [float(logp) for logp in self.action_logps]
        self.observation_ids = [int(token) for token in self.observation_ids]
        self.reward = float(self.reward)
        self.terminated, self.truncated = bool(self.terminated), bool(self.truncated)

    @property
    def num_tokens(self) -> int:
        """Sampled and observed tokens together."""
        return len(self.action_ids) + len(self.observation_ids)

    @property
    def has_outcome(self) -> bool:
        """Whether the reward is the policy's own.

        False where something else failed, and where the question's budget cut the episode:
        what its siblings had spent is not its doing. An episode that outgrew the context is.
        """
        return self.failure in (None, "policy") and self.end_reason != BUDGET


@dataclass(slots=True)
class Tree:
    """All rollouts of one trunk. Build it with `add`; the first node added is the root."""

    question_id: str
    tree_id: int = 0
    difficulty: int = 1
    question: str = ""
    step: int = 0
    """Trainer step in which the tree was grown."""
    question_seed: int = 0
    """Seed that the question was posed with."""
    start: str = "reset"
    """Where the tree begins: the environment's reset, or the start state of that name."""
    start_turns: int = 0
    """Turns that were taken before the root; they are context and are not trained."""
    nodes: list[Node] = field(default_factory=list[Node])

    def add(self, parent: int | None, **step: Unpack[Step]) -> Node:
        """Return the new node, hung under `parent` (None for the root, once); copies the ids.

        Raises:
            TreegrpoError: a step after the end, unequal lengths, an id below 0, a number that
                is not finite, observation ids after the end of an episode.
        """
        above = self._parent_of_new(parent)
        node = Node(len(self.nodes), parent, above.depth + 1 if above else 0, **step)
        self._check_new(node)
        hash_above = above.content_hash if above else ""
        node.content_hash = node_hash(hash_above, node.action_ids, node.observation_ids)
        self.nodes.append(node)
        if above:
            above.children.append(node.id)
        return node

    def reorder(self, order: Sequence[int]) -> dict[int, int]:
        """Number the nodes anew, in `order` of their ids; return the new id of each.

        Raises:
            TreegrpoError: not every node once, or a child before its parent.
        """
        new = {old: number for number, old in enumerate(order)}
        nodes = [self.nodes[old] for old in order if 0 <= old < len(self.nodes)]
        kept = len(new) == len(order) == len(nodes) == len(self.nodes)
        if not kept or any(n.parent is not None and new[n.parent] >= new[n.id] for n in nodes):
            raise TreegrpoError(
                f"An order of nodes asked for, but {list(order)} does not name each of "
                f"{len(self.nodes)} nodes once, a parent before its children. Correct the order."
            )
        for node in nodes:
            node.id = new[node.id]
            node.parent = None if node.parent is None else new[node.parent]
            node.children = sorted(new[child] for child in node.children)
        self.nodes = nodes
        return new

    def leaves(self) -> list[int]:
        """Return the ids of the episode ends, ascending; a bare root is not a leaf."""
        return [node.id for node in self.nodes[1:] if not node.children]

    def scored_leaves(self) -> list[int]:
        """Return the leaves whose reward is an outcome of the policy (`Node.has_outcome`)."""
        return [leaf for leaf in self.leaves() if self.nodes[leaf].has_outcome]

    def path(self, node_id: int) -> list[int]:
        """Return the ids from the root to `node_id`, both included."""
        path: list[int] = []
        above: int | None = self._known(node_id)
        while above is not None:
            path.append(above)
            above = self.nodes[above].parent
        return path[::-1]

    def episode_reward(self, leaf: int) -> float:
        """Return the sum of the rewards along the path to `leaf`."""
        return math.fsum(self.nodes[step].reward for step in self.path(leaf))

    def leaves_below(self, node_id: int) -> list[int]:
        """Return the leaves of the subtree of `node_id`, itself if it is one."""
        below = {self._known(node_id)}
        for node in self.nodes[node_id + 1 :]:
            if node.parent in below:
                below.add(node.id)
        return [leaf for leaf in self.leaves() if leaf in below]

    def value(self, node_id: int) -> float | None:
        """Return the mean episode reward of the scored leaves below; None without any."""
        below = [leaf for leaf in self.leaves_below(node_id) if self.nodes[leaf].has_outcome]
        return fmean(self.episode_reward(leaf) for leaf in below) if below else None

    def leaf_counts(self) -> list[int]:
        """Return, by node id, the number of leaves in its subtree."""
        counts = [0] * len(self.nodes)
        for node in reversed(self.nodes[1:]):
            counts[node.id] += not node.children
            counts[node.parent or 0] += counts[node.id]
        return counts

    @property
    def unique_tokens(self) -> int:
        """Tokens of the tree, each counted once."""
        return sum(node.num_tokens for node in self.nodes)

    @property
    def flat_tokens(self) -> int:
        """Tokens of all root-to-leaf paths, as a flat batch would hold them."""
        pairs = zip(self.nodes, self.leaf_counts(), strict=True)
        return sum(node.num_tokens * count for node, count in pairs)

    @property
    def sampled_tokens(self) -> int:
        """Tokens the policy sampled, once per edge of the tree."""
        return sum(len(node.action_ids) for node in self.nodes)

    @property
    def tool_calls(self) -> int:
        """Tool calls, once per edge of the tree."""
        return sum(node.tool_calls for node in self.nodes)

    @property
    def chain_cost(self) -> tuple[int, int]:
        """Sampled tokens and tool calls that as many chains as there are leaves would take."""
        pairs = list(zip(self.nodes, self.leaf_counts(), strict=True))
        tokens = sum(len(node.action_ids) * count for node, count in pairs)
        return tokens, sum(node.tool_calls * count for node, count in pairs)

    def check_ids(self) -> None:
        """Pass if every node still holds the ids it was added with.

        Raises:
            TreegrpoError: names the first node whose ids changed.
        """
        for node in self.nodes:
            above = "" if node.parent is None else self.nodes[node.parent].content_hash
            if node_hash(above, node.action_ids, node.observation_ids) != node.content_hash:
                raise TreegrpoError(
                    f"Tree {self.tree_id} of question '{self.question_id}' is to be trained on "
                    f"the ids that were sampled, but the ids of node {node.id} have changed "
                    "since. Never re-tokenise or edit a node; add a new one."
                )

    def to_json(self) -> str:
        """Return the tree as one line of ASCII JSON; snapshots and hashes stay behind."""
        record = {name: getattr(self, name) for name in TreeRecord.model_fields}
        record["nodes"] = [
            {name: getattr(node, name) for name in NodeRecord.model_fields} for node in self.nodes
        ]
        return json.dumps(record, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str = "tree") -> Tree:
        """Return the tree of one JSON line; `where` names the line in errors.

        Raises:
            DataFileError: not JSON, a field missing, unknown or of the wrong type, or nodes
                that form no tree; names the field.
        """
        try:
            record = TreeRecord.model_validate(json.loads(text))
        except ValidationError as error:
            raise DataFileError(f"{where}: {_first_fault(error)}") from error
        except (RecursionError, ValueError) as error:
            raise DataFileError(
                f"{where}: a tree must be one line of JSON, but this cannot be parsed "
                f"({error}). Remove the line or write the file again."
            ) from error
        tree = cls(**record.model_dump(exclude={"nodes"}))
        for i, row in enumerate(record.nodes):
            tree._add_record(row, f"{where}: nodes[{i}]")
        return tree

    def _add_record(self, row: NodeRecord, where: str) -> None:
        fields = row.model_dump(exclude={"id", "depth", "advantage"})
        try:
            node = self.add(**fields)
        except TreegrpoError as error:
            raise DataFileError(f"{where}: {error}") from error
        for name, found in (("id", row.id), ("depth", row.depth)):
            if found != getattr(node, name):
                raise DataFileError(
                    f"{where}.{name}: must be {getattr(node, name)} here, found {found}. "
                    "Nodes stand in the order they were added, the root first."
                )
        node.advantage = row.advantage

    def _known(self, node_id: int) -> int:
        if not 0 <= node_id < len(self.nodes):
            raise TreegrpoError(
                f"Node {node_id} asked for, but the tree has {len(self.nodes)} nodes numbered "
                "from 0. Use an id that add() returned."
            )
        return node_id

    def _parent_of_new(self, parent: int | None) -> Node | None:
        if parent is None:
            if self.nodes:
                raise TreegrpoError(
                    "A second root asked for, but a tree has one. Give the parent's id, or "
                    "start a new Tree."
                )
            return None
        above = self.nodes[self._known(parent)]
        if above.terminated or above.truncated:
            raise TreegrpoError(
                f"A step under node {parent} asked for, but the episode ended there "
                f"({above.end_reason}). Fork at an earlier node."
            )
        return above

    def _check_new(self, node: Node) -> None:
        """Refuse at construction what would only show as a wrong gradient later."""
        is_root = node.parent is None
        fault = ""
        if len(node.action_ids) != len(node.action_logps):
            fault = f"{len(node.action_ids)} action_ids but {len(node.action_logps)} action_logps"
        elif not math.isfinite(node.reward) or not all(map(math.isfinite, node.action_logps)):
            fault = "a reward or log-prob that is not finite"
        elif min(node.action_ids, default=0) < 0 or min(node.observation_ids, default=0) < 0:
            fault = "a token id below 0"
        elif is_root and (node.action_ids or not node.observation_ids):
            fault = "a root that is not a prompt (observation_ids only, at least one)"
        elif node.observation_ids and (node.terminated or node.truncated):
            fault = "observation_ids after the end of the episode"
        if fault:
            raise TreegrpoError(
                f"A node for question '{self.question_id}' asked for, but it has {fault}. "
                "Give the ids, log-probs and rewards exactly as sampled."
            )


class NodeRecord(BaseModel):
    """A node as a line of trees.jsonl holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    id: int
    parent: int | None
    depth: int
    action_text: str
    observation_text: str
    reward: float
    terminated: bool
    truncated: bool
    end_reason: str | None
    failure: Failure | None
    state_hash: str
    tool_calls: int = 0
    action_ids: list[int]
    action_logps: list[float]
    observation_ids: list[int]
    weight_version: int
    advantage: float | None


class TreeRecord(BaseModel):
    """A line of trees.jsonl."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    question_id: str
    tree_id: int
    difficulty: int
    step: int
    question: str
    question_seed: int = 0
    start: str = "reset"
    start_turns: int = 0
    nodes: list[NodeRecord] = Field(min_length=1)


def node_hash(hash_above: str, action_ids: Sequence[int], observation_ids: Sequence[int]) -> str:
    """Return the hash of a node's ids and of all ids above it ("" above the root)."""
    actions = ",".join(map(str, action_ids))
    observations = ",".join(map(str, observation_ids))
    return digest_bytes(f"{hash_above}|{actions}|{observations}".encode("ascii"))


def path_hash(segments: Iterable[tuple[Sequence[int], Sequence[int]]]) -> str:
    """Return the `content_hash` that the leaf of a path must have.

    Args:
        segments: (action ids, observation ids) of each node from the root on, read back
            from the batch that is to be trained.
    """
    above = ""
    for action_ids, observation_ids in segments:
        above = node_hash(above, action_ids, observation_ids)
    return above


def sharing_ratio(trees: Iterable[Tree]) -> float:
    """Return flat tokens / unique tokens of the trees that have leaves; 1.0 without any."""
    grown = [tree for tree in trees if tree.leaves()]
    if not grown:
        return 1.0
    return sum(tree.flat_tokens for tree in grown) / sum(tree.unique_tokens for tree in grown)


def read_trees(path: Path) -> Iterator[Tree]:
    """Yield the trees of a trees.jsonl file, one line in memory at a time.

    Raises:
        DataFileError: no such file, or a malformed line; names file, line and field.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_CHARS + 1), ""), 1):
                if len(line) > MAX_LINE_CHARS:
                    raise DataFileError(
                        f"{path} line {number}: longer than {MAX_LINE_CHARS} characters. "
                        "Split the file; no tree is that large."
                    )
                yield Tree.from_json(line, f"{path} line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(
            f"Trees asked for from '{path}', but it cannot be read ({error}). "
            "Name a trees.jsonl of a run folder."
        ) from error


def _first_fault(error: ValidationError) -> str:
    """Return "nodes[2].reward: message, found x" for the first fault of a record."""
    fault: Any = error.errors(include_url=False)[0]
    name = ""
    for part in fault["loc"]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}"
    field_name = name.removeprefix(".") or "the line"
    found = repr(fault["input"])
    shown = found if len(found) <= 60 else found[:57] + "..."
    return f"{field_name}: {fault['msg']}, found {shown}. Correct the field or remove the line."
