"""A chat endpoint that fails in every way: tried again, counted, told, and never with the key."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tests.fake_chat import KEY, FakeChat, Reply, fake_chat, says
from treegrpo.leaderboards.agents.answer import Answer
from treegrpo.leaderboards.agents.endpoint import MAX_ANSWER_BYTES, ContextFull, Endpoint
from treegrpo.leaderboards.agents.pace import Pace
from treegrpo.leaderboards.agents.reach import Reach, retry_after
from treegrpo.leaderboards.errors import AgentUnusable, ProviderFailed

QUESTION: dict[str, Any] = {"model": "m", "messages": []}


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def chat() -> Generator[FakeChat]:
    with fake_chat() as found:
        yield found


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(chat: FakeChat, clock: Clock, count: int = 1, *, url: str = "", **reach: Any) -> Any:
    endpoint = Endpoint(
        url or chat.url, KEY, Reach(**{"retries": 2} | reach), clock=clock, sleep=clock.sleep
    )
    try:
        found = [future.result() for future in [endpoint.ask(QUESTION) for _ in range(count)]]
    finally:
        endpoint.close()
    for one in found:
        if isinstance(one.answer, AgentUnusable):
            raise one.answer
    return found[0] if count == 1 else found


def test_an_answer_is_read_and_the_key_is_sent_in_its_header(chat: FakeChat, clock: Clock) -> None:
    asked = ask(chat, clock)
    assert isinstance(asked.answer, Answer)
    assert (asked.answer.said.text, asked.requests) == ("nothing to say", 1)
    usage = asked.answer.counted(1)
    assert (usage.input, usage.cached, usage.output, usage.reasoning) == (100, 40, 7, 3)
    assert chat.keys == [f"Bearer {KEY}"]
    assert chat.asked == [QUESTION]


FAILURES = {
    "429": (Reply(status=429), "status 429"),
    "500": (Reply({"error": "boom"}, status=500), 'status 500: {"error": "boom"}'),
    "503 of a proxy": (Reply(raw=b"<html>busy</html>", status=503), "busy"),
    "no JSON": (Reply(raw=b'{"choices": [{"mess'), "no JSON"),
    "wrong charset": (
        Reply(raw="{\"choices\": \"\u00e9\"}".encode("latin-1"),
              headers={"content-type": "application/json; charset=latin-1"}),
        "no JSON",
    ),
    "no choices": (Reply({"choices": []}), "field choices"),
    "an error with status 200": (Reply({"error": {"message": "overloaded"}}), "overloaded"),
    "a number for a body": (Reply(raw=b"7"), "cannot be read"),
    "deep": (Reply(raw=b"[" * 100_000), "no JSON"),
    "shorter than it says": (
        Reply(raw=b"{}", headers={"content-length": "9", "connection": "close"}),
        "the connection broke",
    ),
    "damaged gzip": (
        Reply(raw=b"x" * 40, headers={"content-encoding": "gzip"}), "connection broke"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_what_another_try_may_mend_is_tried_again(chat: FakeChat, clock: Clock, name: str) -> None:
    reply, told = FAILURES[name]
    chat.script = [reply]
    mended = ask(chat, clock)
    assert isinstance(mended.answer, Answer)
    assert (mended.requests, clock.slept) == (2, [1.0])
    chat.script = [says("yes"), *[reply] * 3]
    _, asked = ask(chat, clock, 2, connections=1)
    assert isinstance(asked.answer, ProviderFailed)
    assert told in str(asked.answer)
    assert "(3 tries)" in str(asked.answer)
    assert (asked.requests, clock.slept) == (3, [1.0, 1.0, 2.0])


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_in_every_try_before_any_answer_stops_all(
    chat: FakeChat, clock: Clock, name: str
) -> None:
    reply, told = FAILURES[name]
    chat.script = [reply] * 3
    with pytest.raises(
        AgentUnusable, match=r"\(3 tries\)\. No request .*most end in /v1"
    ) as failed:
        ask(chat, clock)
    assert told in str(failed.value)
    assert (len(chat.asked), clock.slept) == (3, [1.0, 2.0])


def test_an_endpoint_that_hangs_is_left_in_time(chat: FakeChat, clock: Clock) -> None:
    chat.script = [says("yes"), Reply(hang=True)]
    _, asked = ask(chat, clock, 2, connections=1, timeout_s=0.3, retries=0)
    assert isinstance(asked.answer, ProviderFailed)
    assert "no answer within 0.3 s" in str(asked.answer)


def test_retry_after_is_kept(chat: FakeChat, clock: Clock) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    chat.script = [
        Reply(status=429, headers={"retry-after": "7"}),
        Reply(status=503, headers={"retry-after": moment}),
        Reply(status=429, headers={"retry-after": "soon"}),
    ]
    assert ask(chat, clock, retries=3).requests == 4
    assert clock.slept[0] == 7.0
    assert 60 < clock.slept[1] <= 90
    assert clock.slept[2] == 4.0  # the third wait that doubles


def test_a_wait_without_measure_is_no_wait(chat: FakeChat, clock: Clock) -> None:
    endless = Reply(status=429, headers={"retry-after": "86400"})
    chat.script = [says("yes"), endless, endless]
    _, asked = ask(chat, clock, 2, connections=1)
    assert isinstance(asked.answer, ProviderFailed)
    assert "it asks to wait 86400 s, more than 300 s" in str(asked.answer)
    with pytest.raises(AgentUnusable, match=r"than 300 s\. Give the same command again later"):
        ask(chat, clock)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("", None), ("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("nan", None), ("inf", None),
     ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0), ("06 Nov 1994 08:49:37 -0000", 0.0)],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


STOPS = {
    "wrong key": (Reply({"error": f"Incorrect API key provided: {KEY}"}, status=401), "[key]"),
    "forbidden": (Reply(status=403), "Check the key and the account"),
    "no money": (Reply({"error": {"code": "insufficient_quota"}}, status=429), "Check the key"),
    "no such model": (Reply({"error": "no model"}, status=404), "(most end in /v1), the model"),
    "a redirect": (
        Reply(status=307, headers={"location": "http://127.0.0.1:1/"}), "redirects are not"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STOPS)
def test_what_would_fail_in_every_episode_stops_all(
    chat: FakeChat, clock: Clock, name: str
) -> None:
    reply, told = STOPS[name]
    chat.script = [reply]
    with pytest.raises(AgentUnusable) as failed:
        ask(chat, clock)
    assert told in str(failed.value)
    assert KEY not in str(failed.value)
    assert len(chat.asked) == 1


def test_nothing_at_the_url_stops_all(chat: FakeChat, clock: Clock) -> None:
    with pytest.raises(AgentUnusable, match=r"no connection .*Check that it is running"):
        ask(chat, clock, url="http://127.0.0.1:9/v1")
    assert clock.slept == [1.0, 2.0]


def test_a_refusal_after_an_answer_is_its_episodes(chat: FakeChat, clock: Clock) -> None:
    chat.script = [says("yes"), Reply({"error": "odd"}, status=400)]
    first, second = ask(chat, clock, 2, connections=1)
    assert isinstance(first.answer, Answer)
    assert isinstance(second.answer, ProviderFailed)
    assert 'status 400: {"error": "odd"}' in str(second.answer)


def test_a_full_context_is_told_apart(chat: FakeChat, clock: Clock) -> None:
    said = {"error": {"message": "This model's maximum context length is 8 tokens."}}
    chat.script = [Reply(said, status=400)]
    assert isinstance(ask(chat, clock).answer, ContextFull)


def test_an_answer_without_end_is_not_kept(chat: FakeChat, clock: Clock) -> None:
    endless = Reply(raw=b" " * (MAX_ANSWER_BYTES + 1))
    chat.script = [says("yes"), endless, endless]
    _, asked = ask(chat, clock, 2, connections=1)
    assert isinstance(asked.answer, ProviderFailed)
    assert "the answer has more than 8388608 bytes" in str(asked.answer)
    with pytest.raises(AgentUnusable, match=r"more than 8388608 bytes\. No request has been"):
        ask(chat, clock)


@pytest.mark.parametrize(
    "body",
    [f"bad key {KEY}", {"error": KEY}, {"error": "x" * 290 + KEY}, {"choices": KEY}],
)
def test_the_key_is_in_no_message(chat: FakeChat, clock: Clock, body: Any) -> None:
    escaped = json.dumps(body).replace("sk-", "\\u0073k-").encode()
    raws = (json.dumps(body).encode(), escaped, b"<p>" + KEY.encode())
    replies = [Reply(status=status, raw=raw) for status in (200, 500, 400) for raw in raws]
    chat.script = [says("yes"), *replies]
    _, *asked = ask(chat, clock, 10, connections=1, retries=0)
    for one in asked:
        assert isinstance(one.answer, ProviderFailed)
        for half in (KEY, KEY[:12]):
            assert half not in str(one.answer)
    assert sum("[key]" in str(one.answer) for one in asked) >= 2


@pytest.mark.parametrize("key", ['sk-"quoted"-0123456789', "sk-back\\slash-0123456789"])
def test_a_key_that_json_spells_otherwise_is_in_no_message(
    chat: FakeChat, clock: Clock, key: str
) -> None:
    spelled = json.dumps(key)[1:-1]
    broken = f'{{"error": "{spelled}'.encode()  # no JSON any more, so it is shown as it came
    chat.script = [says("yes"), *(Reply(raw=raw, status=400) for raw in (
        json.dumps({"error": key}).encode(), broken, key.encode(),
    ))]  # fmt: skip
    endpoint = Endpoint(chat.url, key, Reach(retries=0, connections=1), sleep=clock.sleep)
    try:
        _, *asked = [endpoint.ask(QUESTION).result() for _ in range(4)]
    finally:
        endpoint.close()
    for one in asked:
        told = str(one.answer)
        assert isinstance(one.answer, ProviderFailed) and "[key]" in told
        assert "0123456789" not in told and spelled[:8] not in told


def test_no_more_than_so_many_are_asked_at_once(chat: FakeChat, clock: Clock) -> None:
    assert len(ask(chat, clock, 12, connections=3)) == 12
    assert 1 <= chat.most <= 3


def test_requests_keep_their_pace(chat: FakeChat, clock: Clock) -> None:
    ask(chat, clock, 4, requests_per_minute=30, connections=1)
    assert clock.slept == [2.0, 2.0, 2.0]


def test_tokens_keep_their_pace(chat: FakeChat, clock: Clock) -> None:
    ask(chat, clock, 3, tokens_per_minute=60, connections=1)
    # Every answer counts 107 tokens, one a second; the guess for a question is 8.75 tokens.
    assert clock.slept == pytest.approx([107.0, 107.0])


def test_a_pace_spreads_what_it_is_given() -> None:
    clock = Clock()
    pace = Pace(120, clock)
    assert [pace.reserve(1), pace.reserve(1)] == [0.0, 0.5]
    pace.correct(4)
    assert pace.reserve(1) == 3.0
    clock.now = 100.0
    assert pace.reserve(1) == 0.0


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("127.0.0.1:8000", None, "which is none"),
        ("ftp://127.0.0.1/v1", None, "which is none"),
        ("http://127.0.0.1/v1\n", None, "which is none"),
        ("http://[::1/v1", None, "which is none"),
        ("http://127.0.0.1:x/v1", None, "which is none"),
        ("http://u:p@127.0.0.1/v1", None, "with a user, a password"),
        ("http://127.0.0.1/v1?key=x", None, "a query or a fragment"),
        ("http://example.org/v1", KEY, "shows the key to everybody"),
        ("https://example.org/v1", KEY + "\n", "holds a space or another character"),
        ("https://example.org/v1", "", "is empty"),
        ("https://example.org/v1", "sk \u00e9", "another character"),
    ],
)
def test_what_would_show_the_key_is_refused(url: str, key: str | None, message: str) -> None:
    with pytest.raises(AgentUnusable, match=message) as failed:
        Endpoint(url, key, Reach())
    assert KEY not in str(failed.value)
    assert "u:p" not in str(failed.value)
