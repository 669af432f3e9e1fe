"""Each family of chat templates: what is rendered, what ends an action, what is refused."""

from typing import Any, cast

import pytest
from transformers import PreTrainedTokenizerFast

from tests.fixtures.chat.families import FAMILIES, fresh_tokenizer, template, tokenizer
from treegrpo.chat import ChatFormat, ChatTemplateError, Tool
from treegrpo.envs.core import Message
from treegrpo.tiny import build_tokenizer

NAMES = sorted(FAMILIES)
TAGGED = ["qwen25", "qwen3", "qwen3_keeps"]
CALL = '<tool_call>\n{"name": "find", "arguments": {"what": "trees"}}\n</tool_call>'
TOOLS: list[Tool] = [{"type": "function", "function": {"name": "find", "description": "Seek."}}]
QUESTION: list[Message] = [{"role": "user", "content": "How tall?"}]


def tool(text: str) -> Message:
    return {"role": "tool", "content": text}


def id_of(name: str, token: str) -> int:
    [number] = tokenizer(name).encode(token, add_special_tokens=False)
    return number


def with_template(name: str, other: str) -> PreTrainedTokenizerFast:
    made = fresh_tokenizer(name)
    made.chat_template = template(other)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_token_that_ends_an_action_is_known(name: str) -> None:
    chat, family = ChatFormat(tokenizer(name)), FAMILIES[name]
    assert chat.stop_ids == {id_of(name, token) for token in family.stops}
    assert chat.renders_tools is family.renders_tools
    assert chat.observation_role == "tool"
    assert chat.action_ids("look")[-1] == id_of(name, family.end)


OBSERVED = {
    "qwen25": "\n<|im_start|>user\n<tool_response>\na \n</tool_response>\n<tool_response>\nb\n"
    "</tool_response><|im_end|>\n<|im_start|>assistant\n",
    "llama3": '<|start_header_id|>ipython<|end_header_id|>\n\n"a "<|eot_id|>'
    '<|start_header_id|>ipython<|end_header_id|>\n\n"b"<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "demo": "<|im_start|> tool search <|im_end|> <|im_start|> tool nothing <|im_end|> "
    "<|im_start|> assistant",
}
OBSERVED["qwen3"] = OBSERVED["qwen3_keeps"] = OBSERVED["qwen25"]


@pytest.mark.parametrize("name", NAMES)
def test_observations_look_as_the_family_writes_them(name: str) -> None:
    told = [tool("search"), tool("nothing")] if name == "demo" else [tool("a "), tool("b")]
    ids = ChatFormat(tokenizer(name)).observation_ids(told)
    assert tokenizer(name).decode(ids) == OBSERVED[name]


@pytest.mark.parametrize(
    ("name", "rendered"),
    [
        ("qwen25", "\n<|im_start|>assistant\n"),
        ("qwen3_keeps", "\n<|im_start|>assistant\n"),
        (
            "qwen3",
            "\n<|im_start|>user\n<tool_response>\n\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        ("llama3", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
        ("demo", "<|im_start|> assistant"),
    ],
)
def test_an_action_that_nothing_answers_is_followed_by_the_next(name: str, rendered: str) -> None:
    """Where the template would write a reasoning into such an action, it is told nothing."""
    assert tokenizer(name).decode(ChatFormat(tokenizer(name)).observation_ids([])) == rendered


def test_llamas_text_begins_once_though_its_tokenizer_would_begin_again() -> None:
    chat, begin = ChatFormat(tokenizer("llama3")), id_of("llama3", "<|begin_of_text|>")
    assert tokenizer("llama3").encode("tree")[0] == begin
    assert chat.prompt_ids(QUESTION, TOOLS).count(begin) == 1
    assert chat.prompt_ids(QUESTION, TOOLS)[0] == begin
    assert begin not in chat.observation_ids([tool("<|begin_of_text|>")]) + chat.action_ids("tree")


def test_a_turn_that_awaits_a_tool_is_over_and_the_end_of_text_is_not_the_end_of_a_turn() -> None:
    chat = ChatFormat(tokenizer("llama3"))
    eot, eom, text_end = (
        id_of("llama3", token) for token in ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
    )
    said = chat.action_ids("find trees")[:-1]
    assert [chat.close_ids([*said, end]) for end in (eot, eom, text_end)] == [[], [], [eot]]
    assert {chat.decode_action([*said, end]) for end in (eot, eom, text_end)} == {"find trees"}
    python = id_of("llama3", "<|python_tag|>")
    assert chat.decode_action([python, *said, eom]) == "<|python_tag|>find trees"


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_an_environment_becomes_a_control_token(name: str) -> None:
    chat, control = ChatFormat(tokenizer(name)), FAMILIES[name].control
    ids, honest = (chat.observation_ids([tool(text)]) for text in (" ".join(control), "x y"))
    opening, plain = (
        chat.prompt_ids([{"role": "user", "content": text}]) for text in (" ".join(control), "x y")
    )
    # A word-level tokenizer has its unknown token for what it has no word for.
    for token in control if name != "demo" else control[2:]:
        number = id_of(name, token)
        assert ids.count(number) == honest.count(number), token
        assert opening.count(number) == plain.count(number), token


# ------------------------------------------------------------ reasoning that is dropped later


def test_qwen3_goes_on_after_tools_and_refuses_a_user_who_speaks_again() -> None:
    chat = ChatFormat(tokenizer("qwen3"))
    assert chat.observation_ids([tool("found")])
    with pytest.raises(
        ChatTemplateError,
        match=r"(?s)somebody else than a tool .*changes what stood before: .*"
        r"stood '<think>.*now 'Let me see.*answer with messages of role tool",
    ):
        chat.observation_ids([tool("found"), {"role": "user", "content": "And now?"}])


def test_a_template_that_keeps_only_the_last_reasoning_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ChatTemplateError,
        match=r"(?s)changes what stood before: .*stood '<think>.*now 'Let me see.*"
        r"must keep every earlier message, reasoning included",
    ):
        ChatFormat(with_template("qwen3", "qwen3_last_only"))


def test_a_variant_that_keeps_reasoning_lets_users_speak_again() -> None:
    chat = ChatFormat(tokenizer("qwen3_keeps"))
    ids = chat.observation_ids([{"role": "user", "content": "And now?"}])
    assert tokenizer("qwen3_keeps").decode(ids) == (
        "\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    )


# -------------------------------------------------------------------- stop at the tool's call


@pytest.mark.parametrize("name", [*TAGGED, "demo"])
def test_an_action_may_stop_at_its_tool_call(name: str) -> None:
    free, chat = (ChatFormat(tokenizer(name), stop_at_tool_call=on) for on in (False, True))
    close, end = id_of(name, "</tool_call>"), id_of(name, FAMILIES[name].end)
    assert chat.stop_ids - free.stop_ids == {close} and free.stop_ids < chat.stop_ids
    sampled = chat.action_ids(CALL)[:-1]
    assert sampled[-1] == close
    assert chat.close_ids(sampled) == [end]
    assert chat.decode_action(sampled).endswith("</tool_call>")
    # What the model sampled and what was forced are the turn as the template writes it.
    assert [*sampled, *chat.close_ids(sampled)] == chat.action_ids(CALL)
    assert chat.decode_action(chat.action_ids(CALL)) == chat.decode_action(sampled)


def test_stopping_at_a_tool_call_needs_one_token_for_its_end() -> None:
    with pytest.raises(
        ChatTemplateError,
        match=r"end actions at </tool_call> \(stop_at_tool_call\); .* has no token for it: it "
        r"writes it as \d+ tokens that read '</tool_call>'\. Leave stop_at_tool_call off",
    ):
        ChatFormat(tokenizer("llama3"), stop_at_tool_call=True)


def test_the_unknown_token_is_no_end_of_a_tool_call() -> None:
    with pytest.raises(ChatTemplateError, match=r"1 tokens that read '<\|unk\|>'"):
        ChatFormat(build_tokenizer(["no calls"]), stop_at_tool_call=True)


# ----------------------------------------------------------------------------- nothing is cut


@pytest.mark.parametrize("name", NAMES)
def test_long_texts_are_never_cut(name: str) -> None:
    """A tokenizer may be saved with truncation on; the question reaches the model whole."""
    made = fresh_tokenizer(name)
    cast(Any, made).backend_tokenizer.enable_truncation(max_length=8)
    made.model_max_length = 8
    chat, text = ChatFormat(made), "find trees " * 50
    word = len(chat.action_ids(text)) - 1
    assert word >= 100
    assert len(chat.prompt_ids([{"role": "user", "content": text.strip()}])) > word
    assert len(chat.observation_ids([tool(text)])) > word
