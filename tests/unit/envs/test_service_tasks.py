"""Tasks of Service: one right end each, splits apart, levels that grow, no idle request."""

from collections import Counter

import numpy as np
import pytest

from treegrpo.envs.suite.service import tasks
from treegrpo.envs.suite.service.desk import ServiceDesk
from treegrpo.envs.suite.service.env import DESKS
from treegrpo.envs.suite.service.plan import Goal, Request, words
from treegrpo.envs.suite.service.store import Store
from treegrpo.envs.tasks import Task

NUM_TASKS = 150
TRAIN = {name: list(desk().tasks("train")[:NUM_TASKS]) for name, desk in DESKS.items()}
DOMAINS = pytest.mark.parametrize("domain", list(DESKS))


def requests_of(task: Task) -> tuple[Request, ...]:
    return task.data["requests"]


@DOMAINS
def test_splits_share_no_task(domain: str) -> None:
    desk: ServiceDesk = DESKS[domain]()
    found: dict[str, set[str]] = {"train": {task.id for task in TRAIN[domain]}}
    for split in ("validation", "test"):
        found[split] = {task.id for task in desk.tasks(split)[:NUM_TASKS]}
    assert {split: len(ids) for split, ids in found.items()} == dict.fromkeys(found, NUM_TASKS)
    assert len(set().union(*found.values())) == 3 * NUM_TASKS


@DOMAINS
def test_the_content_decides_the_split(domain: str) -> None:
    desk: ServiceDesk = DESKS[domain]()
    for split in desk.splits:
        for task in desk.tasks(split)[:20]:
            people = task.data["tables"]["customer"]
            assert tasks.split_of(people, requests_of(task)) == split


@DOMAINS
def test_a_task_depends_on_its_index_alone(domain: str) -> None:
    again = DESKS[domain]().tasks("train")
    for index in (140, 3, 77):
        assert again[index] == TRAIN[domain][index]


@DOMAINS
def test_every_kind_of_request_comes_up_and_counts_grow(domain: str) -> None:
    kinds = {request.kind for task in TRAIN[domain] for request in requests_of(task)}
    assert kinds == {*tasks.DOMAINS[domain].makers, "sum", "complaint"}
    counts = {level: set[int]() for level in tasks.DIFFICULTIES}
    for task in TRAIN[domain]:
        counts[task.difficulty].add(len(requests_of(task)))
    assert counts == {1: {1}, 2: {1}, 3: {2}, 4: {3, 4}, 5: {4, 5}}


@DOMAINS
def test_hard_levels_forbid_hide_and_change(domain: str) -> None:
    marks: Counter[tuple[int, str]] = Counter()
    for task in TRAIN[domain]:
        for request in requests_of(task):
            level = task.difficulty
            marks[level, "forbidden"] += request.kind in tasks.DOMAINS[domain].forbidden
            marks[level, "hidden"] += bool(request.hidden)
            marks[level, "revised"] += request.revised is not None
            marks[level, "insists"] += request.insists
    for level in (1, 2):
        assert not any(marks[level, mark] for mark in ("forbidden", "hidden", "revised"))
    assert marks[3, "hidden"] and not marks[3, "revised"]
    per_level = NUM_TASKS // 5
    assert marks[4, "forbidden"] == per_level and marks[4, "revised"]
    assert per_level <= marks[5, "forbidden"] == marks[5, "insists"] <= 2 * per_level


@DOMAINS
def test_forbidden_requests_change_nothing_and_have_a_reason(domain: str) -> None:
    for task in TRAIN[domain]:
        for request in requests_of(task):
            if request.kind in tasks.DOMAINS[domain].forbidden:
                assert request.writes == () and request.fact is not None
                assert request.money == 0 and request.revised is None


@DOMAINS
def test_gold_steps_break_no_rule_and_reach_the_goal(domain: str) -> None:
    parts = tasks.DOMAINS[domain]
    for task in TRAIN[domain]:
        store, rules = Store(task.data["tables"]), task.data["rules"]
        for request in requests_of(task):
            for step in request.final.writes:
                before, caller = store.digest(), task.data["brief"].customer
                assert parts.breach(store, rules, caller, step.tool, step.arguments) is None
                parts.apply(store, rules, step)
                assert store.digest() != before
        goal: Goal = task.answer
        assert store.digest() == goal.state


@DOMAINS
def test_every_task_wants_something_done_or_told(domain: str) -> None:
    for task in TRAIN[domain]:
        assert any(r.final.writes or r.final.fact for r in requests_of(task)), task.id


@DOMAINS
def test_reports_tell_the_facts(domain: str) -> None:
    for task in TRAIN[domain]:
        for request in requests_of(task):
            fact = request.final.fact
            assert fact is None or fact.is_told_by(words(request.final.report)), request


@DOMAINS
def test_the_opening_hides_what_must_be_asked(domain: str) -> None:
    for task in TRAIN[domain]:
        brief = task.data["brief"]
        assert (brief.code in task.question.split("Customer:")[1]) == (task.difficulty == 1)
        for sentence in requests_of(task)[0].hidden.values():
            assert sentence not in task.question


def test_tables_are_not_changed_by_making_tasks() -> None:
    rng = np.random.default_rng(4)
    task = tasks.make_task(rng, 5, domain="shop", split="train")
    fresh = Store(task.data["tables"])
    assert fresh.digest() == Store({}).digest() != task.answer.state
