"""The page of rollout trees and the tables at the end of a run."""

import html
import json
import math
import random
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from treegrpo.envs.errors import DataFileError, TreegrpoError
from treegrpo.tree import Tree
from treegrpo.view import Costs, GroupRow, before_after_table, cost_table, render_trees
from treegrpo.view.curve import learning_curve
from treegrpo.view.page import tint
from treegrpo.view.text import Action, Call, clean_text, read_action

PEOPLE = ["Maren", "Marek", "Tove", "Ilya", "Sanna", "Piet", "Odile", "Bram"]
CITIES = ["Oldport", "Sund", "Karhaven", "Westmere", "Linnaby", "Tarn"]
RELATIONS = ["home", "mayor", "employer", "founder"]
SUMMARY: dict[str, object] = {
    "success_before": 0.31,
    "success_after": 0.863,
    "success_after_low": 0.82,
    "success_after_high": 0.894,
    "sampled_tokens": 412_380,
    "tool_calls": 21_644,
    "sharing_ratio": 1.74,
    "seconds_total": 222.4,
    "seed": 0,
    "algo": "intra_inter",
}
LOADING = ("src", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href")


def call(name: str, **arguments: str) -> str:
    return f"<tool_call> {json.dumps({'name': name, 'arguments': arguments})} </tool_call>"


def grow(
    rng: random.Random,
    *,
    question: str,
    tree_id: int = 0,
    step: int = 0,
    hops: int = 2,
    forks: int = 2,
) -> Tree:
    """Return a tree like a rollout's: a trunk, then branches from randomly chosen steps."""
    tree = Tree(f"t{question}", tree_id, hops, question, step)
    tree.add(None, observation_ids=[1, 2, 3], observation_text="system: use the tools\n" + question)
    starts = [0]
    for _ in range(1 + forks):
        extend(tree, rng.choice(starts), rng, hops)
        starts = [node.id for node in tree.nodes if node.children]
    for node in tree.nodes[1:]:
        node.advantage = rng.gauss(0, 1)
    return tree


def extend(tree: Tree, parent: int, rng: random.Random, hops: int) -> None:
    depth = tree.nodes[parent].depth
    stop = hops + 1 if rng.random() < 0.8 else max(hops, depth + 1)
    for _ in range(depth, stop - 1):
        person, city = rng.choice(PEOPLE), rng.choice(CITIES)
        length = rng.randint(9, 24)
        parent = tree.add(
            parent,
            action_text=call("search", query=f"{rng.choice(RELATIONS)} of {person}"),
            action_ids=list(range(length)),
            action_logps=[-0.1] * length,
            observation_ids=[5, 6],
            observation_text=f"The home of {person} is {city}. The home of Marek is Sund.",
            state_hash=f"{rng.getrandbits(64):016x}",
        ).id
    right, cut = rng.random() < 0.5, rng.random() < 0.1
    tree.add(
        parent,
        action_text=call("answer", text="Tolvik" if right else rng.choice(CITIES)),
        action_ids=[1] * 11,
        action_logps=[-0.2] * 11,
        reward=float(right and not cut),
        terminated=not cut,
        truncated=cut,
        end_reason="turn_limit" if cut else "answered",
        state_hash=f"{rng.getrandbits(64):016x}",
    )


def synthetic_trees(num_questions: int = 6, seed: int = 0, forks: int = 2) -> list[Tree]:
    rng = random.Random(seed)
    trees: list[Tree] = []
    for i in range(num_questions):
        hops = rng.randint(1, 3)
        words = " of the ".join(rng.choice(RELATIONS) for _ in range(hops))
        question = f"What is the {words} of {rng.choice(PEOPLE)} ?"
        for tree_id in range(4):
            tree = grow(
                rng, question=question, tree_id=tree_id, step=i * 10, hops=hops, forks=forks
            )
            trees.append(tree)
    return trees


def synthetic_curve(steps: int = 50) -> list[dict[str, object]]:
    rng = random.Random(1)
    return [
        {"step": i, "success_rate": 0.87 - 0.56 * math.exp(-i / 14) + rng.gauss(0, 0.035)}
        for i in range(steps)
    ]


def write_jsonl(path: Path, trees: list[Tree]) -> Path:
    path.write_text("".join(tree.to_json() + "\n" for tree in trees), encoding="utf-8")
    return path


class Page(HTMLParser):
    """What a browser would build: tags with attributes, text outside of style and script."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._open.append("/" + tag)

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def nodes(self) -> list[tuple[int, int]]:
        """Return (number of the tree on the page, node id) of every node drawn."""
        found: list[tuple[int, int]] = []
        tree = -1
        for _, attributes in self.tags:
            tree += "data-tree" in attributes
            if (node := attributes.get("data-node")) is not None:
                found.append((tree, int(node)))
        return found


def page_of(trees: list[Tree], tmp_path: Path, **options: Any) -> Page:
    return Page(render_trees(trees, tmp_path / "trees.html", **options))


def text_of(table: Table) -> str:
    console = Console(width=120, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


# ---- the page


def test_every_node_of_every_tree_is_drawn_once(tmp_path: Path) -> None:
    trees = synthetic_trees(3)
    expected = [(i, node.id) for i, tree in enumerate(trees) for node in tree.nodes]
    assert sorted(page_of(trees, tmp_path).nodes()) == expected


def test_file_and_trees_give_the_same_bytes(tmp_path: Path) -> None:
    trees = synthetic_trees(2)
    source = write_jsonl(tmp_path / "trees.jsonl", trees)
    from_file = render_trees(source, tmp_path / "new" / "a.html").read_bytes()
    assert from_file == render_trees(trees, tmp_path / "b.html").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.html", "new", "trees.jsonl"]


def test_credit_is_printed_and_tinted_on_one_scale(tmp_path: Path) -> None:
    tree = Tree("q", question="What is the home of Ana ?")
    tree.add(None, observation_ids=[1])
    for credit in (1.8683, -1.8002, 0.0, None, 0.19):
        tree.add(0, action_text="x", terminated=True).advantage = credit
    page = page_of([tree], tmp_path)
    cards = [a["class"] for tag, a in page.tags if tag == "details" and "card" in str(a["class"])]
    assert cards == ["card p10", "card n10", "card z", "card u", "card p2"]
    for number in ("+1.87", "\u22121.80", "0.00", "none", "+0.19", "+1.868300", "-1.800200"):
        assert number in page.text
    assert "credit \u22121.87 +1.87 correct" in page.text  # the legend


@pytest.mark.parametrize(
    ("credit", "scale", "expected"),
    [(2.0, 2.0, "p10"), (-2.0, 2.0, "n10"), (1e-9, 2.0, "p1"), (-1.0, 2.0, "n5"), (0.0, 2.0, "z")],
)
def test_tint_keeps_sign_and_grows_with_size(credit: float, scale: float, expected: str) -> None:
    assert tint(credit, scale) == expected
    assert (tint(0.0, 0.0), tint(None, 1.0)) == ("z", "u")


def leaf(reward: float = 0.0, **step: Any) -> Tree:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    tree.add(0, action_text="a", reward=reward, **step)
    return tree


@pytest.mark.parametrize(
    ("tree", "outcome", "shown"),
    [
        (leaf(1.0, terminated=True), "correct", "reward 1"),
        (leaf(0.5, terminated=True), "wrong", "reward 0.5"),
        (leaf(0.0, truncated=True, end_reason="turn_limit"), "truncated", "ended: turn limit"),
        (leaf(0.0), "truncated", "reward 0"),
        (leaf(0.0, truncated=True, failure="sandbox"), "failed", "failed : sandbox"),
    ],
)
def test_leaf_shows_its_outcome_by_symbol_and_word(
    tree: Tree, outcome: str, shown: str, tmp_path: Path
) -> None:
    page = page_of([tree], tmp_path)
    uses = [a["href"] for tag, a in page.tags if tag == "use"]
    assert uses.count(f"#i-{outcome}") == 3  # list of questions, legend, card
    assert shown in page.text.replace("failed:", "failed :")


def test_reward_of_an_episode_is_the_sum_along_its_path(tmp_path: Path) -> None:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    tree.add(0, action_text="a", reward=0.25)
    tree.add(1, action_text="b", reward=0.75, terminated=True)
    tree.add(1, action_text="c", reward=0.0, terminated=True)
    page = page_of([tree], tmp_path)
    assert "1 of 2 correct" in page.text
    assert "mean reward 0.62 over 2 leaves below" in page.text
    assert "Mixed outcomes" in page.text


def test_fork_points_are_marked_with_their_number_of_branches(tmp_path: Path) -> None:
    trees = synthetic_trees(2)
    forks = [n for tree in trees for n in tree.nodes if len(n.children) > 1]
    page = page_of(trees, tmp_path)
    titles = [str(a.get("title")) for _, a in page.tags if a.get("class") == "badge"]
    marked = sorted(title for title in titles if title.startswith("fork: "))
    assert marked == sorted(f"fork: {len(node.children)} branches" for node in forks)
    assert sum(a.get("class") == "fork" for _, a in page.tags) == len(forks)


def test_lists_are_nested_as_opened(tmp_path: Path) -> None:
    source = page_of(synthetic_trees(4, forks=9), tmp_path).source
    open_tags: list[str] = []
    for end, tag in re.findall(r"<(/?)(ol|ul|li|section|article|details|div|p|span)\b", source):
        if end:
            assert open_tags.pop() == tag
        else:
            open_tags.append(tag)
    assert open_tags == []


def test_headline_and_learning_curve(tmp_path: Path) -> None:
    options = {"title": "Demo", "summary": SUMMARY, "curve": synthetic_curve()}
    page = page_of(synthetic_trees(1), tmp_path, **options)
    for shown in ("31 %", "86 %", "82 to 89 %", "412,380", "21,644", "1.74", "3 min 42 s"):
        assert shown in page.text
    assert [len(str(a["points"]).split()) for tag, a in page.tags if tag == "polyline"] == [50, 50]


def test_odd_summary_and_curve_are_passed_over(tmp_path: Path) -> None:
    summary: dict[str, object] = {"success_after": math.nan, "seed": "x", "tool_calls": True}
    curve: list[dict[str, object]] = [{"step": 1, "success_rate": None}, {"reward_mean": 2.0}]
    page = page_of(synthetic_trees(1), tmp_path, summary=summary, curve=curve)
    assert "success on held-out" not in page.text
    assert "tool calls" not in page.text
    assert not any(tag == "polyline" for tag, _ in page.tags)


def test_questions_are_chosen_at_even_distances_and_the_page_says_so(tmp_path: Path) -> None:
    trees = synthetic_trees(31)
    page = page_of(trees, tmp_path, max_questions=4)
    steps = re.findall(r"training step (\d+),", page.text)
    assert [int(step) for step in steps] == [0, 100, 200, 300]
    assert "4 of 31 questions, at even distances" in page.text


# ---- size


def test_long_texts_are_cut_and_the_page_says_by_how_much(tmp_path: Path) -> None:
    tree = Tree("q", question="Q")
    tree.add(None, observation_ids=[1])
    tree.add(0, action_text="look", observation_text="x" * 3_500 + "END", observation_ids=[1])
    page = page_of([tree], tmp_path)
    assert "1,503 more characters in trees.jsonl" in page.text
    assert "END" not in page.text


def test_large_files_still_give_a_small_page(tmp_path: Path) -> None:
    rng = random.Random(3)
    trees = [
        grow(rng, question=f"q{i} " + "word " * 400, step=i, hops=4, forks=39) for i in range(16)
    ]
    page = page_of(trees, tmp_path, max_questions=16)
    assert len(page.source.encode()) < 400_000
    assert 1 <= sum(tag == "section" for tag, _ in page.tags) < 16


def test_a_tree_of_three_hundred_forks_is_drawn(tmp_path: Path) -> None:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for i in range(300):
        tree.add(i and 2 * i - 1, action_text="go", observation_ids=[1])
        tree.add(i and 2 * i - 1, action_text="stop", terminated=True)
    assert len(page_of([tree], tmp_path).nodes()) == 601


# ---- hostile text

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
    "\x1b[31mred\x1b[0m\x1b]0;owned\x07\x00\x07\x9b2J\u202egnp.exe\ud800</style>\"'><svg/onload=a>"
)


def hostile_tree() -> Tree:
    tree = Tree(HOSTILE, question=HOSTILE)
    tree.add(None, observation_ids=[1], observation_text=HOSTILE)
    action = f"{HOSTILE}<tool_call>{json.dumps({'name': HOSTILE, 'arguments': {HOSTILE: HOSTILE}})}"
    tree.add(0, action_text=action + "</tool_call>", observation_text=HOSTILE, observation_ids=[2])
    tree.add(1, action_text=HOSTILE, end_reason=HOSTILE, state_hash=HOSTILE, terminated=True)
    return tree


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    options = {"title": HOSTILE, "summary": {**SUMMARY, "algo": HOSTILE}}
    page = page_of([hostile_tree()], tmp_path, **options)
    names = [tag for tag, _ in page.tags]
    assert (names.count("script"), names.count("style"), names.count("img")) == (1, 1, 0)
    attributes = [name for _, found in page.tags for name in found]
    assert not [name for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in html.unescape(page.source)  # shown, as text
    assert "{{ 7 * 7 }}" in page.text
    assert "red" in page.text
    assert "owned" not in page.source
    kept = {c for c in page.source if ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c == "\u202e"}
    assert kept == {"\n"}


def test_page_loads_nothing(tmp_path: Path) -> None:
    page = page_of(synthetic_trees(2), tmp_path, summary=SUMMARY, curve=synthetic_curve())
    assert not re.search(r"https?:|url\(|@import|//\w", page.source)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not set(attributes) & set(LOADING)
        assert attributes.get("style") is None  # the policy would refuse it
        assert str(attributes.get("href", "#")).startswith("#")


def test_policy_allows_exactly_the_two_inline_blocks(tmp_path: Path) -> None:
    page = page_of(synthetic_trees(1), tmp_path)
    policy = next(str(a["content"]) for _, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        (block,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
        found = b64encode(sha256(block.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{found}'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("a\x1b]8;;http://x\x1b\\b", "ab"),
        ("keep\x1b]0;what follows an open sequence", "keep0;what follows an open sequence"),
        ("a\x00b\x08c\x7f\x85d", "abcd"),
        ("one\r\ntwo\rthree\tfour\n", "one\ntwo\nthree\tfour"),
        ("\ud800", "\ufffd"),
        ("\u202eabc\u2066", "abc"),
        ("caf\u00e9 \u4f60\u597d", "caf\u00e9 \u4f60\u597d"),
    ],
)
def test_clean_text(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


# ---- actions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (call("search", query="home of Ana"), Action("", (Call("search", '"home of Ana"'),))),
        ("I look. " + call("a", x="1", y="2"), Action("I look.", (Call("a", 'x: "1", y: "2"'),))),
        ("<think>hm</think>" + call("tables"), Action("hm", (Call("tables", ""),))),
        (call("a", q="b") * 2, Action("", (Call("a", '"b"'), Call("a", '"b"')))),
        ("<search>home of Ana</search>", Action("", (Call("search", '"home of Ana"'),))),
        ("<tool_call>{broken</tool_call>", Action("<tool_call>{broken</tool_call>", ())),
        ("<tool_call>[1]</tool_call>", Action("<tool_call>[1]</tool_call>", ())),
        ("1 < 2 and nothing else", Action("1 < 2 and nothing else", ())),
        ("", Action("", ())),
    ],
)
def test_read_action(text: str, expected: Action) -> None:
    assert read_action(text) == expected


# ---- bad input


def test_malformed_file_is_one_error_with_line_and_field(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "trees.jsonl", synthetic_trees(1)[:2])
    record = json.loads(path.read_text(encoding="utf-8").splitlines()[1])
    record["nodes"][2]["reward"] = "high"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    with pytest.raises(TreegrpoError, match=r"trees\.jsonl line 3: nodes\[2\]\.reward"):
        render_trees(path, tmp_path / "trees.html")
    assert not (tmp_path / "trees.html").exists()


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"none\.jsonl"):
        render_trees(tmp_path / "none.jsonl", tmp_path / "trees.html")
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    with pytest.raises(DataFileError, match=r"empty\.jsonl', but it holds none"):
        render_trees(empty, tmp_path / "trees.html")
    with pytest.raises(TreegrpoError, match="no tree was given"):
        render_trees([], tmp_path / "trees.html")
    with pytest.raises(TreegrpoError, match="max_questions must be 1 or more"):
        render_trees(synthetic_trees(1), tmp_path / "trees.html", max_questions=0)


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "trees.html").mkdir()
    with pytest.raises(TreegrpoError, match=r"Asked to write the page .*trees\.html"):
        render_trees(synthetic_trees(1), tmp_path / "trees.html")
    assert [path.name for path in tmp_path.iterdir()] == ["trees.html"]


# ---- the curve and the tables


def test_learning_curve_prefers_success_and_stays_inside() -> None:
    rows: list[dict[str, object]] = [
        {"step": i, "success_rate": s, "reward_mean": -9.0} for i, s in enumerate((0.0, 0.5, 1.0))
    ]
    curve = learning_curve([*rows, {"step": 3, "success_rate": math.nan}])
    assert curve is not None
    assert (curve.first, curve.last, curve.window) == ("0 %", "100 %", 1)
    points = [tuple(map(float, point.split(","))) for point in curve.raw.split()]
    assert len(points) == 3
    assert all(curve.left <= x <= curve.right and 0 < y <= curve.bottom for x, y in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)


def test_learning_curve_falls_back_to_reward() -> None:
    curve = learning_curve([{"step": 0, "reward_mean": -1.0}, {"step": 4, "reward_mean": 3.0}])
    assert curve is not None
    assert [tick.label for tick in curve.ticks] == ["-1.00", "1.00", "3.00"]
    assert learning_curve([{"step": 0, "reward_mean": 1.0}]) is None


def test_before_after_table() -> None:
    before = [GroupRow("1 hop", 40, 0.412, 0.33, 0.5), GroupRow("[red]all", 1, 0, math.nan, 1)]
    after = [GroupRow("1 hop", 40, 0.9, 0.85, 0.95), GroupRow("[red]all", 2, 1, 0.5, 1)]
    text = text_of(before_after_table(before, after))
    for shown in ("41.2 % (33.0 to 50.0)", "90.0 % (85.0 to 95.0)", "+48.8 pt", "(n/a)", "1 / 2"):
        assert shown in text
    assert "[red]all" in text  # a label is no markup


def test_before_after_table_refuses_other_groups() -> None:
    row = GroupRow("1 hop", 4, 0.5, 0.1, 0.9)
    with pytest.raises(TreegrpoError, match=r"before are \['1 hop'\] and after \[\]"):
        before_after_table([row], [])


def test_cost_table() -> None:
    seconds = {"generation": 60.0, "environment": 15.0, "training": 75.0}
    text = text_of(cost_table(Costs(412_380, 21_644, 1.74, seconds)))
    for shown in ("412,380", "21,644", "1.74", "60.0 s", "40 %", "10 %", "50 %", "150.0 s"):
        assert shown in text
