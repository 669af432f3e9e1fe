"""Pieces side by side are what the template makes of the whole conversation.

For every accepted family, any texts, any number of tool results and turns: each piece is, token
for token, the tokenizer's own encoding of what the template adds there.
"""

from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.chat.families import FAMILIES, Family, tokenizer
from treegrpo.chat import ChatFormat, Tool
from treegrpo.envs.core import Message

TOOL: Tool = {"type": "function", "function": {"name": "find", "description": "Seek."}}
NOTHING: Message = {"role": "tool", "content": ""}
CHATS = {name: ChatFormat(tokenizer(name)) for name in FAMILIES}


@dataclass(frozen=True)
class Turn:
    """What the assistant said, and what it was answered."""

    action: str
    answer: tuple[Message, ...]


def texts(*tokens: str) -> st.SearchStrategy[str]:
    """Any text, with these tokens and parts of them in it."""
    scraps = [*tokens, *(token[1:] for token in tokens), *(token[:-1] for token in tokens)]
    words = st.sampled_from([*scraps, "find", " ", "\n", "\n\n", "<", "|>", '"', "\\", "\u00e9"])
    anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    return st.lists(words | anything, max_size=8).map("".join)


def actions(name: str, family: Family) -> st.SearchStrategy[str]:
    """What a model may say and the template writes as it was said; never an end of a turn."""
    said = texts("<tool_call>", "</tool_call>")
    if name == "llama3":
        return said.map(str.strip)
    if name != "qwen3":
        return texts(*family.tags)
    said = said.filter(lambda text: "think>" not in text).map(lambda text: text.lstrip("\n"))
    reasoning = said.map(lambda text: f"<think>\n{text.strip(chr(10)) or 'hm'}\n</think>\n\n")
    return st.tuples(reasoning | st.just(""), said).map("".join)


def conversations(name: str) -> st.SearchStrategy[tuple[list[Message], list[Turn]]]:
    family = FAMILIES[name]
    said = texts(*family.control, "</tool_call>")

    def by(role: str) -> st.SearchStrategy[Message]:
        return said.map(lambda text: cast(Message, {"role": role, "content": text}))

    answers = st.lists(by("tool"), max_size=3).map(tuple)
    if family.users_return:
        answers |= st.tuples(by("user"))
    opening = st.tuples(by("user")) | st.tuples(by("system"), by("user"))
    turns = st.builds(Turn, actions(name, family), answers)
    return st.tuples(opening.map(list), st.lists(turns, max_size=4))


def defused(message: Message, family: Family) -> Message:
    """Return the message with every control token broken by a space."""
    content = message["content"]
    for token in family.control:
        content = content.replace(token, f"{token[0]} {token[1:]}")
    return cast(Message, {**message, "content": content})


def rendered(name: str, messages: list[Message], tools: list[Tool]) -> str:
    safe = [m if m["role"] == "assistant" else defused(m, FAMILIES[name]) for m in messages]
    return str(
        tokenizer(name).apply_chat_template(
            cast(Any, safe),
            tools=[dict(one) for one in tools] or None,
            add_generation_prompt=True,
            tokenize=False,
        )
    )


@pytest.mark.parametrize("name", sorted(FAMILIES))
@given(data=st.data())
@settings(max_examples=60)
def test_pieces_are_the_whole_conversation(name: str, data: st.DataObject) -> None:
    chat, family = CHATS[name], FAMILIES[name]
    messages, turns = data.draw(conversations(name))
    tools = [TOOL] if family.renders_tools and data.draw(st.booleans()) else []
    text = rendered(name, messages, tools)
    assert chat.prompt_ids(messages, tools) == encoded(name, text)
    for turn in turns:
        answer = list(turn.answer)
        told = answer if answer or family.is_mute else [NOTHING]
        said: Message = {"role": "assistant", "content": turn.action}
        messages += [said, *told]
        before, text = text + turn.action + family.end, rendered(name, messages, tools)
        assert text.startswith(before)
        assert chat.action_ids(turn.action) == encoded(name, turn.action + family.end)
        assert chat.observation_ids(answer) == encoded(name, text[len(before) :])


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"demo"}))
@given(data=st.data())
@settings(max_examples=40)
def test_no_answer_adds_a_control_token(name: str, data: st.DataObject) -> None:
    chat, family = CHATS[name], FAMILIES[name]
    said = data.draw(st.lists(texts(*family.control), min_size=1, max_size=3))
    ids, plain = (
        chat.observation_ids([{"role": "tool", "content": text} for text in told])
        for told in (said, ["x"] * len(said))
    )
    for token in family.control:
        [number] = encoded(name, token)
        assert ids.count(number) == plain.count(number), token


def encoded(name: str, text: str) -> list[int]:
    return tokenizer(name).encode(text, add_special_tokens=False)
