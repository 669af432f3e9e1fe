"""What a chat template does, found out by rendering short conversations with it.

A template is fit when the text in front of an action never changes as the conversation goes
on. That is tried with plain words, tool calls, reasoning, several turns, turns that nothing
answers and, where the template has them, tools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from treegrpo.chat.template import ChatTemplateError, Template, Tool
from treegrpo.envs.core import Message

Role: TypeAlias = Literal["tool", "user"]

_QUESTION: Message = {"role": "user", "content": "Which one is it?"}
_OBSERVATION = "It is the third."
_PLAIN = "Let me see."
_ACTIONS = (
    _PLAIN,
    '<tool_call>\n{"name": "look", "arguments": {"where": "there"}}\n</tool_call>',
    "<think>\nThe second, or the third?\n</think>\n\nLet me see.",
    "Once more.",
)
_TOOL: Tool = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look somewhere.",
        "parameters": {"type": "object", "properties": {"where": {"type": "string"}}},
    },
}


@dataclass(frozen=True)
class Habits:
    """How a fit template writes what follows an action."""

    observation_role: Role
    """The role of observations that the template writes out."""
    end: str
    """The token that ends an action."""
    frame: str
    """What the template wrote around the texts of a short conversation."""
    renders_tools: bool
    """Whether the template writes tool schemas into the prompt."""
    silence: tuple[Message, ...]
    """What is rendered where the environment said nothing: no message, or an empty one."""
    user_refusal: str | None
    """Why a user cannot speak again after an action; None where that is fine."""


def examine(template: Template) -> Habits:
    """Return the habits of a template that keeps what stood before.

    Raises:
        ChatTemplateError: it has no generation prompt or no single end-of-turn token; or it
            changes what stood before when a conversation goes on.
    """
    question = _generation_prompt(template)
    role, rest = _choose_role(template, question)
    end = _end_of_turn(template, rest)
    answer = (_said(role, _OBSERVATION),)
    _require_prefix_kept(template, end, answer, ())
    renders_tools = _uses_tools(template)
    if renders_tools:
        _require_prefix_kept(template, end, answer, (_TOOL,))
    return Habits(
        observation_role=role,
        end=end,
        frame=(question + rest).replace(_QUESTION["content"], "").replace(_OBSERVATION, ""),
        renders_tools=renders_tools,
        silence=_choose_silence(template, end, role),
        user_refusal=_user_refusal(template, end),
    )


def behind_action(template: Template, end: str, messages: Sequence[Message]) -> str:
    """Return the text from an action's end to the next action, from a dummy conversation."""
    head = template.render([_QUESTION]) + _PLAIN + end
    text = template.render([_QUESTION, _assistant(_PLAIN), *messages])
    _require_extends(template, head, text)
    return text[len(head) :]


def _generation_prompt(template: Template) -> str:
    """Return the rendered dummy question, generation prompt included."""
    without = template.render([_QUESTION], generate=False)
    text = template.render([_QUESTION])
    if not text.startswith(without) or len(text) == len(without):
        raise ChatTemplateError(
            f"Asked for a generation prompt; {template.name}'s chat template adds none (it "
            f"ends with {without[-40:]!r} either way). Handle add_generation_prompt in it."
        )
    return text


def _choose_role(template: Template, question: str) -> tuple[Role, str]:
    """Return the role for observations, and what follows an action rendered with it."""
    head = question + _PLAIN
    problem: ChatTemplateError | None = None
    roles: tuple[Role, ...] = ("tool", "user")
    for role in roles:
        try:
            text = template.render([_QUESTION, _assistant(_PLAIN), _said(role, _OBSERVATION)])
            _require_extends(template, head, text)
        except ChatTemplateError as error:
            problem = problem or error
            continue
        if _OBSERVATION in text:
            return role, text[len(head) :]
    raise problem or ChatTemplateError(
        f"Asked to render an observation as a tool's or a user's message; {template.name}'s "
        "chat template drops both. Change the template so that it writes their content."
    )


def _end_of_turn(template: Template, rest: str) -> str:
    """Return the token that ends an action, from the text that follows one."""
    candidates = [token for token in template.added if rest.startswith(token)]
    end = max(candidates, key=len, default="")
    if not end or template.encode(end) != [template.added[end]]:
        raise ChatTemplateError(
            f"Asked for the token that ends a turn; {template.name}'s chat template goes on "
            f"with {rest[:40]!r}, which does not begin with one added token. Let the "
            "template end a turn with a special token."
        )
    return end


def _choose_silence(template: Template, end: str, role: Role) -> tuple[Message, ...]:
    """Return no message where two actions may follow each other, otherwise an empty one.

    Templates that want roles to alternate refuse the former, and those that add an empty
    reasoning to a last action would write into what was sampled.
    """
    try:
        _require_prefix_kept(template, end, (), ())
    except ChatTemplateError:
        empty = (_said(role, ""),)
        _require_prefix_kept(template, end, empty, ())
        return empty
    return ()


def _user_refusal(template: Template, end: str) -> str | None:
    """Return what happens to earlier turns when a user speaks again; None if nothing does."""
    try:
        _require_prefix_kept(template, end, (_said("user", _OBSERVATION),), ())
    except ChatTemplateError as error:
        return str(error)
    return None


def _uses_tools(template: Template) -> bool:
    """Return whether a tool given to the template shows in what it renders."""
    try:
        return "Look somewhere." in template.render([_QUESTION], (_TOOL,))
    except ChatTemplateError:
        return False


def _require_prefix_kept(
    template: Template, end: str, answer: Sequence[Message], tools: Sequence[Tool]
) -> None:
    """Refuse a template whose pieces side by side are not the whole conversation."""
    piece = behind_action(template, end, answer)
    for first in _ACTIONS:
        messages = [_QUESTION]
        expected = template.render(messages, tools)
        for action in (first, *(other for other in _ACTIONS if other != first)):
            messages += [_assistant(action), *answer]
            expected += action + end + piece
            text = template.render(messages, tools)
            _require_extends(template, expected, text, whole=True)


def _require_extends(template: Template, prefix: str, text: str, *, whole: bool = False) -> None:
    """Refuse unless the text begins with the prefix, or is all of it."""
    if text == prefix or (text.startswith(prefix) and not whole):
        return
    same = [a == b for a, b in zip(prefix, text, strict=False)]
    at = same.index(False) if False in same else len(same)
    raise ChatTemplateError(
        f"Asked {template.name}'s chat template to continue a conversation; it changes what "
        f"stood before: after {prefix[max(0, at - 40) : at]!r} stood "
        f"{prefix[at : at + 60]!r}, now {text[at : at + 60]!r}. Use a template that only "
        "appends: it must keep every earlier message, reasoning included."
    )


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _said(role: Role, text: str) -> Message:
    return {"role": role, "content": text}
