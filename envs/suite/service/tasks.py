"""The tasks of Service: conversations made up, carried out once, and put into a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.service.airline_requests import AIRLINE
from treegrpo.envs.suite.service.customer import introduction
from treegrpo.envs.suite.service.domain import Domain, Scene, hand_over_request, sum_request
from treegrpo.envs.suite.service.plan import DONE, Brief, Goal, Request, between, pick
from treegrpo.envs.suite.service.rules import Course, Rules, draw_course
from treegrpo.envs.suite.service.shop_requests import SHOP
from treegrpo.envs.suite.service.store import Record, Store, Tables
from treegrpo.envs.tasks import Task

DOMAINS: Mapping[str, Domain] = {"shop": SHOP, "airline": AIRLINE}
DIFFICULTIES = (1, 2, 3, 4, 5)
SPLITS = ("train", "validation", "test")
_TRIES = 20
_LAST = " That is all."


def make_task(rng: np.random.Generator, difficulty: int, *, domain: str, split: str) -> Task:
    """Return a random task of one split.

    Which split a task may be in follows from its content (customers and requests), so no task
    can be in two, whatever the seeds.
    """
    scene, requests, patience = _conversation(rng, DOMAINS[domain], difficulty)
    caller = dict(scene.tables["customer"][scene.customer])
    people = {**scene.tables["customer"], scene.customer: caller}
    while split_of(people, requests) != split:
        caller["code"] = str(between(rng, 100, 999))
    brief = Brief(
        scene.customer,
        name=caller["name"],
        code=caller["code"],
        introduced=difficulty == 1,
        confirms=scene.rules.confirms,
        patience=patience,
    )
    return _task(DOMAINS[domain], scene, brief, {**scene.tables, "customer": people}, requests)


def split_of(people: Mapping[str, Record], requests: Sequence[Request]) -> str:
    """Return the only split such a task can be in: of ten parts, two are test, one validation."""
    part = int(digest([people, tuple(requests)])[:8], 16) % 10
    return "test" if part < 2 else "validation" if part == 2 else "train"


def _task(
    domain: Domain, scene: Scene, brief: Brief, tables: Tables, requests: Sequence[Request]
) -> Task:
    """Return the task of a conversation whose gold steps were carried out in the scene."""
    ending = next((request.ending for request in requests if request.ending), DONE)
    kinds = "-".join(request.kind for request in requests)
    return Task(
        id=f"{kinds}-{digest([tables, requests, scene.rules])[:12]}",
        question=_question(domain, scene.rules, brief, requests),
        answer=Goal(scene.store.digest(), ending),
        difficulty=scene.rules.level,
        data={
            "tables": tables,
            "requests": tuple(requests),
            "brief": brief,
            "rules": scene.rules,
        },
    )


def _conversation(
    rng: np.random.Generator, domain: Domain, level: int
) -> tuple[Scene, list[Request], int]:
    """Return a scene after the gold steps, what was asked in it, and the customer's patience."""
    while True:
        rules, tables = domain.draw_rules(rng, level), domain.make_tables(rng)
        for _ in range(_TRIES):
            course = draw_course(rng, level)
            scene = Scene(rng, rules, tables, next(iter(tables["customer"])), Store(tables))
            requests = _compose(scene, domain, course)
            if requests is not None:
                return scene, requests, course.patience


def _question(domain: Domain, rules: Rules, brief: Brief, requests: Sequence[Request]) -> str:
    hello = f"{introduction(brief)} " if brief.introduced else ""
    close = _LAST if rules.level < 3 else ""
    return f"Policy\n{domain.policy(rules)}\n\nCustomer: {hello}{requests[0].text}{close}"


def _compose(scene: Scene, domain: Domain, course: Course) -> list[Request] | None:
    """Return the requests of a conversation; the scene's database is then as it must end."""
    level, rng = scene.rules.level, scene.rng
    plain = course.requests - (course.has_sum or course.has_hand_over)
    forbidden = {int(i) for i in rng.permutation(plain)[: course.forbidden]}
    requests: list[Request] = []
    has_revised = False
    for position in range(course.requests):
        kinds = domain.forbidden if position in forbidden else domain.kinds[level]
        request = _some(scene, domain, kinds) if position < plain else _last(scene, domain, course)
        if request is None:
            return None
        if course.has_change_of_mind and not has_revised and request.writes:
            revised = domain.revise(scene, request)
            request = replace(request, revised=revised)
            has_revised = revised is not None
        for step in request.final.writes:
            domain.apply(scene.store, scene.rules, step)
        scene.money.append(request.final.money)
        requests.append(request)
    return requests if has_revised == course.has_change_of_mind else None


def _last(scene: Scene, domain: Domain, course: Course) -> Request | None:
    """Return the special request that closes a conversation."""
    return hand_over_request() if course.has_hand_over else sum_request(domain, scene)


def _some(scene: Scene, domain: Domain, kinds: Sequence[str]) -> Request | None:
    """Return the first request of a drawn kind that the database allows."""
    for _ in range(_TRIES):
        request = domain.makers[pick(scene.rng, kinds)](scene)
        if request is not None:
            return request
    return None
