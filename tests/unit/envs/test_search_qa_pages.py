"""SearchQA's pages: worlds that add up, levels, splits apart, tools, rewards, live retrieval."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.envs.loopback_site import Reply, Site, loopback_site
from treegrpo.envs import check_env_laws, make
from treegrpo.envs.baselines import oracle_action, random_action, run_episode
from treegrpo.envs.errors import DataFileError, UnknownOption
from treegrpo.envs.recorder import Recorder, replay
from treegrpo.envs.retrieval import Cassette, RetrievalFailed
from treegrpo.envs.suite import search_qa
from treegrpo.envs.suite.search_qa import reading
from treegrpo.envs.suite.search_qa.page_env import SearchPagesEnv
from treegrpo.envs.suite.search_qa.page_tasks import UNKNOWN, split_of, world_of
from treegrpo.envs.suite.search_qa.page_worlds import LEVELS, SPLITS, build_pages, fact_split
from treegrpo.envs.suite.search_qa.wording import OTHER_WORDS
from treegrpo.envs.suite.search_qa.worlds import RELATIONS
from treegrpo.envs.tasks import Task

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
QA = FIXTURES / "qa"
README = Path(search_qa.__file__).with_name("README.md")
TASKS = {split: list(SearchPagesEnv().tasks(split)[:60]) for split in SPLITS}
ALL = [task for tasks in TASKS.values() for task in tasks]

# What each sentence says, told apart from the generator: how a reader understands it.
PLAIN = re.compile(r"The (\w+) of (\w+) is (\w+)\.")
REWORDED = {
    relation: re.compile(words.sentence.format(s=r"(?P<s>\w+)", o=r"(?P<o>\w+)"))
    for relation, words in OTHER_WORDS.items()
}


def reader_knows(task: Task) -> dict[tuple[str, str], str]:
    """Return the facts that somebody learns who reads every page but believes no novel."""
    known: dict[tuple[str, str], str] = {}
    for page in world_of(task).pages:
        for sentence in reading.sentences(page.text):
            if found := PLAIN.fullmatch(sentence):
                known[found[2], found[1]] = found[3]
            for relation, form in REWORDED.items():
                if found := form.fullmatch(sentence):
                    known[found["s"], relation] = found["o"]
    return known


def test_the_answer_follows_from_the_pages_alone() -> None:
    for task in ALL:
        known, name = reader_knows(task), task.data["subject"]
        for relation in task.data["relations"]:
            name = known.get((name, relation), UNKNOWN)
        assert task.answer == (name,), task


def test_levels_have_their_hops_words_and_share_of_open_questions() -> None:
    for level, shape in LEVELS.items():
        tasks = [task for task in ALL if task.difficulty == level]
        assert {len(task.data["relations"]) for task in tasks} == {shape.hops}
        opens = sum(task.answer == (UNKNOWN,) for task in tasks) / len(tasks)
        assert (opens == 0.0) if not shape.unanswerable else (0.05 < opens < 0.5)
        named = [bool(set(re.findall(r"\w+", t.question)) & set(RELATIONS)) for t in tasks]
        assert not any(named) if shape.rewords_questions else all(named)
        assert all(task.data["subject"] in task.question for task in tasks)


def test_pages_hold_what_their_level_says() -> None:
    for level, shape in LEVELS.items():
        text = " ".join(page.text for page in build_pages(level, "train", 1).pages)
        assert ("Until last year" in text) == (shape.outdated > 0)
        assert ("In the novel" in text) == (shape.novels > 0)
        assert any(w.key in text for w in OTHER_WORDS.values()) == shape.rewords_pages


def test_splits_share_neither_task_nor_fact() -> None:
    contents = {
        split: {(task.question, task.answer) for task in tasks} for split, tasks in TASKS.items()
    }
    assert all(len(one) > 55 for one in contents.values())
    for split, tasks in TASKS.items():
        assert {split_of(task.question, task.answer[0]) for task in tasks} == {split}
        for level in LEVELS:
            told = build_pages(level, split, 2).told.values()
            assert {fact_split(one.fact) for one in told} == {split}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not contents[one] & contents[other]


def test_tasks_and_worlds_are_the_same_when_made_again() -> None:
    for split in SPLITS:
        assert SearchPagesEnv().tasks(split)[:20] == TASKS[split][:20]
    first = build_pages(5, "test", 7).pages
    build_pages.cache_clear()
    assert build_pages(5, "test", 7).pages == first


def test_every_page_is_found_by_its_title() -> None:
    for level in LEVELS:
        world = build_pages(level, "test", 3)
        for name in world.kinds:
            assert world.shelf.search(name, 1)[0].title in (name, f"{name} (novel)")
            assert name in [hit.title for hit in world.shelf.search(name, 2)]


@pytest.mark.parametrize("level", LEVELS)
def test_the_oracle_solves_every_task_within_the_budget(level: int) -> None:
    env = SearchPagesEnv()
    steps = Counter[int]()
    for seed in range(15):
        options = {"split": SPLITS[seed % 3], "difficulty": level}
        result = run_episode(env, oracle_action, seed=seed, options=options)
        assert result.success, env.messages
        steps[len(result.actions)] += 1
    assert max(steps) <= {1: 3, 2: 5, 3: 7, 4: 11, 5: 13}[level]


def test_the_oracle_reads_small_parts_to_the_end_and_works_from_any_state() -> None:
    env, rng = SearchPagesEnv(page_chars=100, top_k=2), np.random.default_rng(0)
    for seed in range(12):
        env.reset(seed=seed, options={"difficulty": 3 + seed % 3})
        for _ in range(4):
            action = random_action(env, rng)
            if not env.episode.ended and '"answer"' not in action:
                env.step(action)
        while not env.episode.ended:
            env.step(env.oracle())
        assert env.episode.episode_return == 1.0, env.messages


def test_doing_nothing_and_doing_anything_are_far_below() -> None:
    env, rng = SearchPagesEnv(), np.random.default_rng(1)
    results = [
        run_episode(env, lambda core: random_action(core, rng), seed=seed) for seed in range(30)
    ]
    assert sum(result.success for result in results) <= 2


def play(env: SearchPagesEnv, tool: str, **arguments: Any) -> str:
    return env.step(env.encode_call(tool, **arguments))[0]


@pytest.fixture
def env() -> SearchPagesEnv:
    made = SearchPagesEnv(page_chars=200)
    made.reset(seed=5, options={"difficulty": 5})
    return made


def test_pages_keep_their_numbers_and_are_read_in_parts(env: SearchPagesEnv) -> None:
    name = env.task.data["subject"]
    first = play(env, "search", query=name).splitlines()
    assert first == play(env, "search", query=name).splitlines()
    assert [line.partition(".")[0] for line in first] == ["1", "2", "3", "4"]
    shown = play(env, "open", number=1)
    total = int(re.search(r"\(part 1 of (\d+)\)", shown)[1])  # pyright: ignore[reportOptionalSubscript]
    parts = [shown, *(play(env, "open", number=1, part=n) for n in range(2, total + 1))]
    texts = [part.partition(": ")[2] for part in parts]
    assert all(len(text) <= 200 for text in texts)
    title = env.state.found[0][0]
    page = next(p for p in world_of(env.task).pages if p.title == title)
    assert " ".join(texts) == page.text


def test_words_are_found_in_the_open_page_only(env: SearchPagesEnv) -> None:
    assert "no page is open" in play(env, "find", text="is")
    play(env, "search", query=env.task.data["subject"])
    play(env, "open", number=1)
    title = env.state.found[0][0]
    assert play(env, "find", text=f"{title.upper()}   IS a").startswith(f"{title} is a")
    assert play(env, "find", text="zzz") == play(env, "find", text=" ") == reading.NOTHING_FOUND


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (("open", {"number": 1}), "no page has number 1; search first"),
        (("open", {"number": "x"}), "Bad arguments: number"),
        (("open", {}), "Bad arguments: number"),
        (("search", {"query": ["a"]}), "Bad arguments: query"),
        (("search", {"query": "\x00\ud800 \u202e"}), reading.NOTHING_FOUND),
        (("search", {"query": "z" * 7_000}), reading.NOTHING_FOUND),
        (("search", {"query": ""}), reading.NOTHING_FOUND),
        (("find", {"text": "a" * 7_000}), "no page is open"),
    ],
)
def test_bad_calls_are_told_and_the_episode_goes_on(
    env: SearchPagesEnv, call: tuple[str, dict[str, Any]], says: str
) -> None:
    action = f"<tool_call>{json.dumps({'name': call[0], 'arguments': call[1]})}</tool_call>"
    observation, reward, terminated, truncated, _ = env.step(action)
    assert says in observation
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_pages_and_parts_that_are_not_there_are_told(env: SearchPagesEnv) -> None:
    play(env, "search", query=env.task.data["subject"])
    assert "numbers are 1 to 4" in play(env, "open", number=9)
    assert "numbers are 1 to 4" in play(env, "open", number=-1)
    assert "page 1 has no part 50; parts are 1 to " in play(env, "open", number=1, part=50)


def test_the_budget_of_turns_ends_an_episode_without_a_reward() -> None:
    env = SearchPagesEnv()
    env.reset(seed=1)
    for _ in range(env.max_turns - 1):
        assert not any(env.step(env.encode_call("search", query="x"))[1:4])
    _, reward, terminated, truncated, info = env.step(env.encode_call("search", query="x"))
    assert (reward, terminated, truncated, info["end_reason"]) == (0.0, False, True, "turn_limit")


@pytest.mark.parametrize(
    ("reward", "given", "earns"),
    [
        ("em", "The Mira  Tolland!", 1.0),
        ("em", "Mira", 0.0),
        ("f1", "Mira", 2 / 3),
        ("f1", "it was Mira Tolland", 2 / 3),
        ("f1", "nobody", 0.0),
        ("f1", UNKNOWN, 0.0),
        ("em", "", 0.0),
        ("f1", "", 0.0),
    ],
)
def test_rewards(reward: Any, given: str, earns: float) -> None:
    env = SearchPagesEnv(reward=reward, data=str(QA / "nq.jsonl"), corpus=str(QA / "corpus.jsonl"))
    env.reset(seed=0, options={"index": 0})
    _, got, terminated, _, info = env.step(env.encode_call("answer", text=given))
    assert (got, terminated) == (pytest.approx(earns), True)
    assert info["success"] is (earns == 1.0)


@pytest.mark.parametrize("name", ["hotpotqa.json", "2wiki.json", "musique.jsonl"])
def test_question_files_are_searched_and_read(name: str) -> None:
    env = SearchPagesEnv(data=str(QA / name))
    for index in range(len(env.tasks("test"))):
        result = run_episode(env, oracle_action, options={"split": "test", "index": index})
        assert result.success and env.state.read


def test_unanswerable_questions_of_a_file_want_unknown(tmp_path: Path) -> None:
    first, second, _ = SearchPagesEnv(data=str(QA / "musique.jsonl")).tasks("test")
    assert (second.id, second.answer) == (f"{first.id} (unanswerable)", (UNKNOWN,))
    assert first.answer != (UNKNOWN,)
    path = tmp_path / "full.jsonl"
    path.write_text('{"id": "1", "question": "q", "answer": "a", "paragraphs": 3}', "utf-8")
    with pytest.raises(DataFileError, match=r"line 1: field 'paragraphs' should be a list"):
        SearchPagesEnv(data=str(path), source_format="musique")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reward": "f2"}, "reward='f2' .* one of em, f1"),
        ({"retriever": "wep"}, "Did you mean 'web'"),
        ({"top_k": 0}, "top_k=0 .* from 1 to 20"),
        ({"page_chars": "many"}, "page_chars='many' .* from 100 to 3500"),
        ({"corpus": "c"}, "no data was given"),
        ({"cassette": "c"}, "of no use to retriever='local'"),
        ({"url": "http://x/"}, "of no use to retriever='local'"),
        ({"hosts": ["x"]}, "of no use to retriever='local'"),
        ({"provider": "brave"}, "of no use to retriever='local'"),
        ({"cassette_mode": "replay"}, "of no use to retriever='local'"),
        ({"allow_loopback": True}, "of no use to retriever='local'"),
        ({"retriever": "web"}, "without data"),
        ({"retriever": "http", "data": "d", "corpus": "c"}, "brings documents of its own"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownOption, match=says):
        SearchPagesEnv(**options)


@pytest.fixture
def site() -> Iterator[Site]:
    with loopback_site() as served:
        yield served


def live(site: Site, tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Return the options of an environment whose web is the site."""
    page = site.put("/page", Reply(b"Tolland built it.", headers={"Content-Type": "text/plain"}))
    hits = [{"title": "Light", "url": page, "content": "A look."}]
    hits.append({"title": "No", "url": f"{site.url}/no"})
    site.put("/search", Reply(json.dumps({"results": hits}).encode()))
    tape = str(tmp_path / "web.sqlite")
    source = {"data": str(QA / "nq.jsonl"), "retriever": "web", "url": site.url, "cassette": tape}
    return {**source, "allow_loopback": True, **options}


@pytest.fixture(autouse=True)
def extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages here are plain text; the extra may or may not be installed."""
    name = "treegrpo.envs.retrieval.open.load_extractor"
    monkeypatch.setattr(name, lambda: lambda markup: markup)


def test_the_web_is_searched_read_recorded_and_replayed(site: Site, tmp_path: Path) -> None:
    options = live(site, tmp_path)
    recorder = Recorder(env := make("treegrpo/SearchQA-v1", **options))
    recorder.reset(seed=0, options={"index": 0})
    core: Any = env.unwrapped
    said = [
        recorder.step(core.encode_call(tool, **arguments))[0]
        for tool, arguments in (
            ("search", {"query": "lamp"}),
            ("open", {"number": 1}),
            ("open", {"number": 2}),
            ("find", {"text": "tolland"}),
            ("answer", {"text": "Mira Tolland"}),
        )
    ]
    assert said[:2] == ["1. Light: A look.\n2. No", "Light: Tolland built it."]
    assert "cannot be opened: the site answered with status 404" in said[2]
    assert core.episode.episode_return == 1.0
    asked = len(site.seen)
    site.pages.clear()
    report = replay(recorder.events)
    assert report.matches and len(site.seen) == asked, report.divergence


def test_forks_see_the_same_web_and_a_replay_never_asks(site: Site, tmp_path: Path) -> None:
    options = live(site, tmp_path)
    env = SearchPagesEnv(**options)
    env.reset(seed=0, options={"index": 0})
    twin = env.fork()
    first = play(env, "search", query="lamp")
    site.put("/search", Reply(b'{"results": []}'))
    assert play(twin, "search", query="lamp") == first
    frozen = SearchPagesEnv(**options, cassette_mode="replay")
    frozen.reset(seed=0, options={"index": 0})
    asked = len(site.seen)
    assert play(frozen, "search", query="lamp") == first
    with pytest.raises(RetrievalFailed, match="none to this request"):
        play(frozen, "search", query="light")
    assert len(site.seen) == asked


def test_a_passage_server_answers_through_the_same_tools(site: Site, tmp_path: Path) -> None:
    body = (FIXTURES / "web" / "retrieve.json").read_bytes()
    url = site.put("/retrieve", Reply(body))
    tape = str(tmp_path / "c.sqlite")
    env = SearchPagesEnv(data=str(QA / "nq.jsonl"), retriever="http", url=url, cassette=tape)
    assert run_episode(env, oracle_action, options={"index": 1}).success
    env.reset(options={"index": 1})
    assert play(env, "search", query="flag").startswith("1. Brindle Lighthouse: The Brindle")
    assert play(env, "open", number=2) == "Aldania: The flag of Aldania is green."


def test_the_laws_hold_over_a_server_that_changes_its_mind(site: Site, tmp_path: Path) -> None:
    passages = [[{"contents": f"Page {number}\nIt says {number}."}] for number in range(400)]
    replies = [Reply(json.dumps({"result": [one]}).encode()) for one in passages]
    options = {"data": str(QA / "nq.jsonl"), "retriever": "http", "url": site.put("/r", *replies)}
    tape = str(tmp_path / "c.sqlite")
    reports = check_env_laws(
        lambda: make("treegrpo/SearchQA-v1", cassette=tape, **options), episodes=1
    )
    assert [report.law for report in reports if report.checks == 0 or report.note] == []
    assert len(Cassette(Path(tape), writes=False)) == len(site.seen) > 1


def test_parts_hold_every_word_whatever_the_text() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        text = "".join(rng.choice(list("ab .!\n"), size=int(rng.integers(0, 300))))
        for size in (1, 7, 100):
            parts = reading.parts(text, size)
            assert parts and all(len(part) <= size for part in parts)
            assert "".join("".join(parts).split()) == "".join(text.split())


def test_the_readme_tells_a_true_episode() -> None:
    text = README.read_text(encoding="ascii")
    found = re.search(r"Test task (\d+), played by the oracle:\n\n```text\n(.*?)\n```", text, re.S)
    assert found is not None
    env = SearchPagesEnv(render_mode="ansi")
    run_episode(env, oracle_action, seed=0, options={"split": "test", "index": int(found[1])})
    assert found[2] == f"{env.render()}\n[reward] {env.episode.episode_return}"
    listed = re.findall(r"^\| `(\w+)\(", text, re.M)
    assert listed == [schema["function"]["name"] for schema in env.tool_schemas()]
