"""treegrpo view: rollout trees as the viewer's trees, pages of runs and bundles, a server."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.leaderboards.toy import TOY
from tests.viewer_fixture import question_trees, write_run
from treegrpo.cli.main import app
from treegrpo.cli.view import page_server, write_view
from treegrpo.cli.view_pages import trees_page
from treegrpo.cli.view_trees import by_question, question_tree
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.tree import Tree


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    out = tmp_path / "scores"
    evaluate(scripted_agent("oracle"), TOY, split="test", num_tasks=2, trials=1, seed=0, out=out)
    return out


# ---- trees


def test_the_trees_of_a_question_are_one_tree_from_its_prompt() -> None:
    tree = question_tree(question_trees())
    assert [(node.id, node.parent, node.step) for node in tree.nodes] == [
        ("start", None, 0), ("0.1", "start", 1), ("0.2", "0.1", 2), ("0.3", "0.1", 2),
        ("1.1", "start", 1),
    ]  # fmt: skip
    assert [node.credit for node in tree.nodes] == [None, 0.0, 0.5, -0.5, 0.25]
    assert [node.outcome for node in tree.nodes] == [None, None, "correct", "wrong", "correct"]
    # Rewards 1 and 0 below the fork, 1 on the chain: means 1/2, and 2/3 of all.
    assert [node.value for node in tree.nodes] == [pytest.approx(2 / 3), 0.5, 1.0, 0.0, 1.0]
    assert [node.tokens for node in tree.nodes] == [None, 2, 1, 1, 1]
    assert tree.title == "Who is the mayor of Sund ? (2 of 3 correct)"
    facts = dict(tree.facts)
    assert (facts["trees"], facts["rewards"], facts["sampled tokens"]) == ("2", "mixed", "5")


def test_a_tree_that_begins_elsewhere_keeps_its_own_beginning() -> None:
    first, second = question_trees()
    second.start, second.start_turns = "oracle_prefix", 3
    ids = [(node.id, node.parent) for node in question_tree([first, second]).nodes]
    assert ids[-2:] == [("1.0", "start"), ("1.1", "1.0")]
    beginning = question_tree([first, second]).nodes[-2]
    assert beginning.action == "oracle_prefix: 3 turns were taken before this tree begins"


def leaf(reward: float, **step: object) -> Tree:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    tree.add(0, action_text="a", reward=reward, **step)  # type: ignore[arg-type]
    return tree


@pytest.mark.parametrize(
    ("tree", "outcome"),
    [
        (leaf(1.0, terminated=True), "correct"),
        (leaf(0.5, terminated=True), "wrong"),
        (leaf(0.0, truncated=True, end_reason="turn_limit"), "truncated"),
        (leaf(0.0), "truncated"),
        (leaf(1.0, truncated=True, failure="sandbox"), "failed"),
    ],
)
def test_a_leaf_has_the_outcome_of_its_episode(tree: Tree, outcome: str) -> None:
    assert question_tree([tree]).nodes[-1].outcome == outcome


def test_the_reward_of_an_episode_is_the_sum_along_its_path() -> None:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    tree.add(0, action_text="a", reward=0.25)
    tree.add(1, action_text="b", reward=0.75, terminated=True)
    tree.add(1, action_text="c", terminated=True)
    nodes = question_tree([tree]).nodes
    assert [node.value for node in nodes] == [0.625, 0.625, 1.0, 0.25]
    assert [node.outcome for node in nodes[2:]] == ["correct", "wrong"]
    assert [n.outcome for n in question_tree([tree], 0.2).nodes[2:]] == ["correct", "correct"]


def test_a_very_deep_tree_is_read_like_any_other() -> None:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for above in range(3000):
        tree.add(above, action_text="a", observation_ids=[1])
    assert question_tree([tree]).nodes[-1].step == 3000


def test_trees_belong_together_by_step_and_question() -> None:
    trees = [*question_trees(0), *question_trees(1), *question_trees(0, "Another ?")]
    assert [len(question) for question in by_question(trees)] == [2, 2, 2]


def test_a_page_shows_questions_at_even_distances() -> None:
    trees = [tree for step in range(31) for tree in question_trees(step)]
    page = trees_page(trees, title="t", max_questions=4)
    assert re.findall(r'"training step","(\d+)"', page) == ["1", "11", "21", "31"]
    with pytest.raises(TreegrpoError, match=r"there is none\. Name a run that has saved"):
        trees_page([], title="t")


# ---- pages


def test_a_training_run_gets_its_page_and_one_for_each_step_with_trees(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    written = write_view([run], None, 1.0)
    assert (written.index, written.shown) == (run / "view" / "index.html", "trees of 1 question")
    index = written.index.read_text()
    assert re.findall(r'<a href="(.*?)"', index) == ["steps/000003.html"]
    assert index.count('<figure class="chart">') == 6
    step = (run / "view" / "steps" / "000003.html").read_text()
    assert "mine, step 3" in step
    assert 'href="../index.html"' in step


def test_the_pages_are_written_anew_but_nothing_else_is_lost(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    for _ in range(2):
        write_view([run], None, 1.0)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(TreegrpoError, match="holds other files, which would be lost"):
        write_view([run], other, 1.0)
    with pytest.raises(TreegrpoError, match="but that is a file"):
        write_view([run], other / "thesis.tex", 1.0)
    assert (other / "thesis.tex").read_text() == "years of work"


def test_several_runs_share_one_page(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{i}" / "run", seed=i) for i in range(3)]
    with pytest.raises(TreegrpoError, match="Say where to write it: --out DIR"):
        write_view(runs, None, 1.0)
    index = write_view(runs, tmp_path / "all", 1.0).index.read_text()
    assert "thin: 3 runs; thick: their median" in index
    targets = re.findall(r'<a href="(.*?)"', index)
    assert targets == [f"steps/{name}/000003.html" for name in ("run", "run-2", "run-3")]
    assert all((tmp_path / "all" / target).is_file() for target in targets)
    assert 'href="../../index.html"' in (tmp_path / "all" / targets[0]).read_text()


def test_the_pages_of_a_bundle_leave_the_bundle_whole(bundle: Path) -> None:
    written = write_view([bundle], None, 1.0)
    assert written.index == bundle.with_name("scores-view") / "index.html"
    assert written.shown == "2 episodes"
    read_bundle(bundle)
    links = re.findall(r'<a href="(.*?)"', written.index.read_text())
    assert len(links) == 2
    assert all((written.index.parent / link).is_file() for link in links)


def test_wrong_folders_are_named(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(TreegrpoError, match=r"found neither metrics\.jsonl nor run\.json"):
        write_view([tmp_path], None, 1.0)
    with pytest.raises(TreegrpoError, match="found no such folder"):
        write_view([tmp_path / "none"], None, 1.0)
    with pytest.raises(TreegrpoError, match="Give one bundle alone, or training runs only"):
        write_view([write_run(tmp_path / "run"), bundle], tmp_path / "out", 1.0)


def test_a_malformed_tree_is_named_and_the_pages_before_stay(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    index = write_view([run], None, 1.0).index
    before = index.read_bytes()
    record = json.loads((run / "trees.jsonl").read_text().splitlines()[1])
    record["nodes"][1]["reward"] = "high"
    with (run / "trees.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    with pytest.raises(TreegrpoError, match=r"trees\.jsonl line 3: nodes\[1\]\.reward"):
        write_view([run], None, 1.0)
    assert index.read_bytes() == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


# ---- the command


def test_the_command_says_where_the_page_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    result = CliRunner().invoke(app, ["view", str(run)])
    assert result.exit_code == 0
    page = run / "view" / "index.html"
    assert result.output.replace("\n", "") == f"trees of 1 question: {page}"


def test_a_server_on_loopback_gives_the_pages_and_nothing_above_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    index = write_view([run], None, 1.0).index
    with page_server(index.parent, 0) as server:
        address, port = server.server_address[:2]
        assert address == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(f"{url}/", timeout=30) as answer:
                assert answer.read() == index.read_bytes()
            with pytest.raises(urllib.error.HTTPError, match="404") as caught:
                urllib.request.urlopen(f"{url}/../config.json", timeout=30)
            caught.value.close()
            with pytest.raises(TreegrpoError, match=f"--serve {port} asked for"):
                page_server(index.parent, port)
        finally:
            server.shutdown()
            thread.join()
