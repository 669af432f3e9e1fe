"""The model's own chat template, rendered piece by piece so that history is never rendered again.

    prompt_ids | action (sampled ids, stop token included) | observation_ids | action | ...

The pieces side by side are what the template makes of the whole conversation. That is checked
when a `ChatFormat` is made, and a template for which it does not hold is refused: training on
ids other than the sampled ones is how re-tokenisation ruins a run.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from treegrpo.envs.core import Message
from treegrpo.envs.errors import TreegrpoError

Tool: TypeAlias = Mapping[str, Any]
"""A tool's schema in the form {"type": "function", "function": {...}}."""

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


class _Tokenizer(Protocol):
    """All that is asked of a tokenizer, whose own types are loose."""

    chat_template: str | dict[str, str] | None
    eos_token_id: int | None
    name_or_path: str

    def get_added_vocab(self) -> dict[str, int]: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(
        self, ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str: ...

    def apply_chat_template(
        self,
        conversation: list[Message],
        *,
        tools: list[Tool] | None,
        add_generation_prompt: bool,
        tokenize: bool,
    ) -> str: ...


class ChatTemplateError(TreegrpoError):
    """The chat template cannot be used, or not for what was asked; the message says why."""


class ChatFormat:
    """Turns messages into the token ids that the model reads, and its ids into text.

    Attributes:
        observation_role: "tool", or "user" for a template that refuses or drops tool messages.
        renders_tools: whether the template writes tool schemas into the prompt.
        stop_ids: end-of-turn token, and the tokenizer's end-of-text token.

    Raises:
        ChatTemplateError: there is no template; it has no generation prompt or no single
            end-of-turn token; or it changes what stood before when a conversation goes on.
    """

    observation_role: Literal["tool", "user"]
    renders_tools: bool
    stop_ids: frozenset[int]

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = cast(_Tokenizer, tokenizer)
        self._vocabulary = self._tokenizer.get_added_vocab()
        if not self._tokenizer.chat_template:
            raise ChatTemplateError(
                f"A chat format was asked for, {self._name} has no chat template. Use an "
                "instruction-tuned model, or set tokenizer.chat_template."
            )
        self._question = self._generation_prompt()
        self.observation_role, rest = self._choose_role()
        self._end_id, self._end = self._end_of_turn(rest)
        # What an environment's text must not be able to forge: whatever structures turns.
        frame = (self._question + rest).replace(_QUESTION["content"], "").replace(_OBSERVATION, "")
        self._control = [token for token in self._vocabulary if token in frame]
        end_of_text = self._tokenizer.eos_token_id
        self.stop_ids = frozenset(
            {self._end_id} if end_of_text is None else {self._end_id, end_of_text}
        )
        self._require_prefix_kept(())
        self.renders_tools = self._uses_tools()
        if self.renders_tools:
            self._require_prefix_kept((_TOOL,))

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Return the ids of a conversation's opening messages and the generation prompt.

        Raises:
            ChatTemplateError: the template refuses the messages, or `tools` are given and it
                does not render them.
        """
        if tools and not self.renders_tools:
            raise ChatTemplateError(
                f"Asked to put {len(tools)} tools into the prompt; {self._name}'s chat template "
                "renders none. Describe them in the system message and pass no tools."
            )
        return self._encode(self._render(self._defuse(messages), tools))

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
        generation prompt. Messages of role "tool" get the role the template accepts.
        """
        return self._encode(self._observation(self._defuse(self._in_role(messages)), ()))

    def action_ids(self, text: str) -> list[int]:
        """Return the ids of an assistant's turn, stop token included: a demonstration."""
        return [*self._encode(text), self._end_id]

    def decode_action(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids without the stop token; other special tokens stay."""
        end = len(ids) - 1 if ids and ids[-1] in self.stop_ids else len(ids)
        return self._tokenizer.decode(
            list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def close_ids(self, ids: Sequence[int]) -> list[int]:
        """Return the ids to force behind sampled ids so that the turn is over; often none.

        Not sampled, hence not trained.
        """
        return [] if ids and ids[-1] == self._end_id else [self._end_id]

    @property
    def _name(self) -> str:
        return self._tokenizer.name_or_path or "the tokenizer"

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, generate: bool = True
    ) -> str:
        try:
            return self._tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                add_generation_prompt=generate,
                tokenize=False,
            )
        except (TemplateError, ValueError, TypeError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ChatTemplateError(
                f"Asked to render messages of roles {roles}; the chat template of {self._name} "
                f"refuses them: {error}. Send messages it accepts, or change the template."
            ) from error

    def _generation_prompt(self) -> str:
        """Return the rendered dummy question, generation prompt included."""
        without = self._render([_QUESTION], generate=False)
        text = self._render([_QUESTION])
        if not text.startswith(without) or len(text) == len(without):
            raise ChatTemplateError(
                f"Asked for a generation prompt; {self._name}'s chat template adds none (it "
                f"ends with {without[-40:]!r} either way). Handle add_generation_prompt in it."
            )
        return text

    def _choose_role(self) -> tuple[Literal["tool", "user"], str]:
        """Return the role for observations, and what follows an action rendered with it."""
        head = self._question + _PLAIN
        problem: ChatTemplateError | None = None
        roles: tuple[Literal["tool", "user"], ...] = ("tool", "user")
        for role in roles:
            try:
                text = self._render([_QUESTION, _assistant(_PLAIN), _said(role, _OBSERVATION)])
                self._require_extends(head, text)
            except ChatTemplateError as error:
                problem = problem or error
                continue
            if _OBSERVATION in text:
                return role, text[len(head) :]
        raise problem or ChatTemplateError(
            f"Asked to render an observation as a tool's or a user's message; {self._name}'s "
            "chat template drops both. Change the template so that it writes their content."
        )

    def _end_of_turn(self, rest: str) -> tuple[int, str]:
        """Return the token that ends an action, from the text that follows one."""
        candidates = [token for token in self._vocabulary if rest.startswith(token)]
        end = max(candidates, key=len, default="")
        ids = self._encode(end)
        if not end or ids != [self._vocabulary[end]]:
            raise ChatTemplateError(
                f"Asked for the token that ends a turn; {self._name}'s chat template goes on "
                f"with {rest[:40]!r}, which does not begin with one added token. Let the "
                "template end a turn with a special token."
            )
        return ids[0], end

    def _observation(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        """Return the text behind a stop token, from a dummy conversation that ends with it."""
        head = self._render([_QUESTION], tools) + _PLAIN + self._end
        text = self._render([_QUESTION, _assistant(_PLAIN), *messages], tools)
        self._require_extends(head, text)
        return text[len(head) :]

    def _require_prefix_kept(self, tools: Sequence[Tool]) -> None:
        """Refuse a template whose pieces side by side are not the whole conversation."""
        observation = _said(self.observation_role, _OBSERVATION)
        piece = self._observation([observation], ())
        for first in _ACTIONS:
            messages = [_QUESTION]
            expected = self._render(messages, tools)
            for action in (first, *(other for other in _ACTIONS if other != first)):
                messages += [_assistant(action), observation]
                expected += action + self._end + piece
                text = self._render(messages, tools)
                self._require_extends(expected, text, whole=True)

    def _uses_tools(self) -> bool:
        """Return whether a tool given to the template shows in what it renders."""
        try:
            return "Look somewhere." in self._render([_QUESTION], (_TOOL,))
        except ChatTemplateError:
            return False

    def _require_extends(self, prefix: str, text: str, *, whole: bool = False) -> None:
        """Refuse unless the text begins with the prefix, or is all of it."""
        if text == prefix or (text.startswith(prefix) and not whole):
            return
        same = [a == b for a, b in zip(prefix, text, strict=False)]
        at = same.index(False) if False in same else len(same)
        raise ChatTemplateError(
            f"Asked {self._name}'s chat template to continue a conversation; it changes what "
            f"stood before: after {prefix[max(0, at - 40) : at]!r} stood "
            f"{prefix[at : at + 60]!r}, now {text[at : at + 60]!r}. Use a template that only "
            "appends: it must keep every earlier message, reasoning included."
        )

    def _in_role(self, messages: Iterable[Message]) -> list[Message]:
        """Return the messages with tool results in the role that the template accepts."""
        if self.observation_role == "tool":
            return list(messages)
        # One message: templates without tools often want user and assistant to alternate.
        return [_said("user", "\n".join(message["content"] for message in messages))]

    def _defuse(self, messages: Iterable[Message]) -> list[Message]:
        """Return the messages with control tokens in their text broken up.

        Otherwise a search result that holds the end-of-turn token would end the turn.
        """
        safe: list[Message] = []
        for message in messages:
            content = message["content"]
            for token in self._control:
                content = content.replace(token, f"{token[0]} {token[1:]}")
            copy = message.copy()
            copy["content"] = content
            safe.append(copy)
        return safe


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _said(role: Literal["tool", "user"], text: str) -> Message:
    return {"role": role, "content": text}
