"""Messages to the ids that the model reads, and the ids it samples to text.

What ends an action, and what is forced behind it:

    <|im_end|>, <|eot_id|>, ...   the template's end of a turn                 nothing
    <|eom_id|>                    the same where a tool is to answer (Llama)   nothing
    end of text                   the model ended more than its turn           the end of a turn
    </tool_call>                  only with `stop_at_tool_call`                the end of a turn
    nothing                       the limit of tokens was reached              the end of a turn

Forced ids were not sampled, hence they are not trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from transformers import PreTrainedTokenizerBase

from treegrpo.chat.checks import behind_action, examine
from treegrpo.chat.template import ChatTemplateError, Template, Tool
from treegrpo.envs.core import Message

_TOOL_CALL_END = "</tool_call>"
_OTHER_TURN_ENDS = ("<|eom_id|>",)
"""End a turn in models that have them, though the template itself may never write them."""
_TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>")
"""End a text in models whose tokenizer names the end of a turn as its end token."""


class ChatFormat:
    """Turns messages into the token ids that the model reads, and its ids into text.

    Args:
        tokenizer: borrowed; its chat template is the one that is used.
        stop_at_tool_call: an action ends with its first </tool_call>, whatever the model would
            have said after it. Off, it ends where the model ends its turn.

    Attributes:
        observation_role: "tool", or "user" for a template that refuses or drops tool messages.
        renders_tools: whether the template writes tool schemas into the prompt.
        stop_ids: every token that ends an action.

    Raises:
        ChatTemplateError: there is no template; it has no generation prompt or no single
            end-of-turn token; it changes what stood before when a conversation goes on; or
            actions are to stop at a </tool_call> that is not one token.
    """

    observation_role: Literal["tool", "user"]
    renders_tools: bool
    stop_ids: frozenset[int]

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, stop_at_tool_call: bool = False
    ) -> None:
        self._template = template = Template(tokenizer)
        self._habits = habits = examine(template)
        self.observation_role, self.renders_tools = habits.observation_role, habits.renders_tools
        self._end_id = template.added[habits.end]
        self._turn_ends = _ids(template, (habits.end, *_OTHER_TURN_ENDS))
        self._ends = self._turn_ends | _ids(template, _TEXT_ENDS)
        if template.end_of_text is not None:
            self._ends |= {template.end_of_text}
        self.stop_ids = self._ends
        if stop_at_tool_call:
            self.stop_ids |= {self._tool_call_end()}
        # What an environment's text must not be able to forge: whatever structures turns.
        structure = {*template.special, *_OTHER_TURN_ENDS, *_TEXT_ENDS}
        control = [t for t in template.added if t in structure or t in habits.frame]
        longest_first = sorted(control, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)))

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Return the ids of a conversation's opening messages and the generation prompt.

        All of them, however many: what is too long for the model is refused by who samples.

        Raises:
            ChatTemplateError: the template refuses the messages, or `tools` are given and it
                does not render them.
        """
        if tools and not self.renders_tools:
            raise ChatTemplateError(
                f"Asked to put {len(tools)} tools into the prompt; {self._template.name}'s chat "
                "template renders none. Describe them in the system message and pass no tools."
            )
        return self._template.encode(self._template.render(self._defuse(messages), tools))

    def opening_ids(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """Return `prompt_ids`, with tools that the template does not render told in words.

        Their schemas then follow the system message as JSON, one per line.
        """
        if self.renders_tools or not tools:
            return self.prompt_ids(messages, tools)
        lines = ["Tools:", *(json.dumps(tool) for tool in tools)]
        parts = [m["content"] for m in messages if m["role"] == "system"] + lines
        system: Message = {"role": "system", "content": "\n".join(parts)}
        return self.prompt_ids([system, *(m for m in messages if m["role"] != "system")])

    def observation_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids between an action's stop token and the next action.

        They hold what the template puts behind the stop token, the messages and the next
        generation prompt. Messages of role "tool" get the role the template accepts; without
        any message the model simply speaks again, or is told nothing in an empty one.

        Raises:
            ChatTemplateError: the template refuses the messages, or a user speaks and it then
                changes earlier turns.
        """
        self._require_allowed(messages)
        said = self._in_role(messages) if messages else self._habits.silence
        text = behind_action(self._template, self._habits.end, self._defuse(said))
        return self._template.encode(text)

    def action_ids(self, text: str) -> list[int]:
        """Return the ids of an assistant's turn, stop token included: a demonstration."""
        return [*self._template.encode(text), self._end_id]

    def decode_action(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids without the token that ended it, if one did.

        A </tool_call> is part of the text, also where the action stopped at it; so are other
        special tokens.
        """
        end = len(ids) - 1 if ids and ids[-1] in self._ends else len(ids)
        return self._template.decode(ids[:end])

    def close_ids(self, ids: Sequence[int]) -> list[int]:
        """Return the ids to force behind sampled ids so that the turn is over; often none.

        Not sampled, hence not trained.
        """
        return [] if ids and ids[-1] in self._turn_ends else [self._end_id]

    def _tool_call_end(self) -> int:
        """Return the token that is all of </tool_call>."""
        ids = self._template.encode(_TOOL_CALL_END)
        if len(ids) != 1 or self._template.decode(ids) != _TOOL_CALL_END:
            raise ChatTemplateError(
                f"Asked to end actions at {_TOOL_CALL_END} (stop_at_tool_call); "
                f"{self._template.name} has no token for it: it writes it as {len(ids)} tokens "
                f"that read {self._template.decode(ids)!r}. Leave stop_at_tool_call off, or "
                "use a model whose vocabulary holds it as one token."
            )
        return ids[0]

    def _require_allowed(self, messages: Iterable[Message]) -> None:
        """Refuse a user's message where the template would then change earlier turns."""
        refusal = self._habits.user_refusal
        if refusal is None or all(message["role"] == "tool" for message in messages):
            return
        raise ChatTemplateError(
            "Asked to let somebody else than a tool answer an action, which this chat template "
            f"cannot do: {refusal} Or let the environment answer with messages of role tool."
        )

    def _in_role(self, messages: Iterable[Message]) -> list[Message]:
        """Return the messages with tool results in the role that the template accepts."""
        if self.observation_role == "tool":
            return list(messages)
        # One message: templates without tools often want user and assistant to alternate.
        return [{"role": "user", "content": "\n".join(m["content"] for m in messages)}]

    def _defuse(self, messages: Iterable[Message]) -> list[Message]:
        """Return the messages with control tokens in their text broken up.

        Otherwise a search result that holds the end-of-turn token would end the turn.
        """
        safe: list[Message] = []
        for message in messages:
            copy = message.copy()
            copy["content"] = self._control.sub(_broken_up, message["content"])
            safe.append(copy)
        return safe


def _ids(template: Template, tokens: Iterable[str]) -> frozenset[int]:
    """Return the ids of those tokens that the tokenizer has."""
    return frozenset(template.added[token] for token in tokens if token in template.added)


def _broken_up(token: re.Match[str]) -> str:
    return f"{token[0][0]} {token[0][1:]}"
