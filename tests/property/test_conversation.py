"""Whatever a chat endpoint answers, the conversation stays one that endpoints accept."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.leaderboards.toy import TOY
from treegrpo.envs import make
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.agents.answer import Answer
from treegrpo.leaderboards.agents.conversation import Calls, Conversation

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["guess", "gess", "", "error", "</tool_call>"]) | st.text(max_size=5)
NUMBERS = st.fixed_dictionaries({"number": st.integers(-2, 2)}).map(json.dumps)
ARGUMENTS = NUMBERS | st.text(max_size=12) | ANYTHING
CALL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": NAMES, "arguments": ARGUMENTS})},
    optional={"id": st.none() | st.text(max_size=4), "type": st.just("function")},
)
SAID = st.fixed_dictionaries(
    {"content": st.none() | st.text(max_size=20) | st.just("<tool_call>{}</tool_call>")},
    optional={"tool_calls": st.none() | st.lists(CALL, max_size=4)},
)


@settings(max_examples=60, deadline=None)
@given(turns=st.lists(SAID, min_size=1, max_size=4), calls=st.sampled_from(["native", "text"]))
def test_every_call_has_one_reply_right_behind_it(turns: list[Any], calls: Calls) -> None:
    env = make(TOY)
    delta = env.reset(seed=0, options={"split": "test", "index": 0})[1]["messages"]
    core, talk, ended = core_of(env), Conversation(calls), False
    for message in turns:
        if ended:
            break
        talk.observe(core, delta)
        answer = Answer.model_validate({"choices": [{"message": message}]})
        _, _, terminated, truncated, info = env.step(talk.answer(core, answer.said))
        delta, ended = info["messages"], terminated or truncated
    talk.observe(core, delta)
    json.dumps(talk.sent).encode("ascii")
    expected: list[str] = []
    seen: set[str] = set()
    for sent in talk.sent:
        if sent["role"] == "tool":
            expected.remove(sent["tool_call_id"])
        else:
            assert expected == []
            expected = [call["id"] for call in sent.get("tool_calls", [])]
            assert not seen & set(expected)
            seen |= set(expected)
            for call in sent.get("tool_calls", []):
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
    assert expected == []


@settings(max_examples=100, deadline=None)
@given(
    usage=ANYTHING
    | st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": ANYTHING,
            "completion_tokens": ANYTHING,
            "prompt_tokens_details": ANYTHING | st.fixed_dictionaries({"cached_tokens": ANYTHING}),
        },
    )
)
def test_no_count_makes_an_answer_unreadable(usage: Any) -> None:
    answer = Answer.model_validate({"choices": [{"message": {"content": "x"}}], "usage": usage})
    counted = answer.counted(1)
    assert counted.requests == 1
    for count in (counted.input, counted.cached, counted.output, counted.reasoning):
        assert count is None or count >= 0
