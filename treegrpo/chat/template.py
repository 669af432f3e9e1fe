"""A tokenizer and its chat template: messages to text, text to ids, ids to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from treegrpo.envs.core import Message
from treegrpo.envs.errors import TreegrpoError

Tool: TypeAlias = Mapping[str, Any]
"""A tool's schema in the form {"type": "function", "function": {...}}."""


class ChatTemplateError(TreegrpoError):
    """The chat template cannot be used, or not for what was asked; the message says why."""


class _Added(Protocol):
    """A token outside the learned vocabulary: text that holds it is always cut there."""

    content: str
    special: bool


class _Tokenizer(Protocol):
    """All that is asked of a tokenizer, whose own types are loose."""

    chat_template: str | dict[str, str] | None
    eos_token_id: int | None
    name_or_path: str
    added_tokens_decoder: Mapping[int, _Added]

    def encode(self, text: str, *, add_special_tokens: bool, truncation: bool) -> list[int]: ...

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


class Template:
    """Renders messages with the tokenizer's template, and encodes text as it stands.

    Attributes:
        name: of the model or tokenizer, for messages to people.
        added: text -> id of every token that text is always cut at.
        special: those of them that are no text: they mark turns, ends and other structure.
        end_of_text: the tokenizer's own end token; None where it has none.

    Raises:
        ChatTemplateError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = cast(_Tokenizer, tokenizer)
        self.name = self._tokenizer.name_or_path or "the tokenizer"
        added = self._tokenizer.added_tokens_decoder
        self.added = {token.content: id for id, token in added.items()}
        self.special = frozenset(token.content for token in added.values() if token.special)
        self.end_of_text = self._tokenizer.eos_token_id
        if not self._tokenizer.chat_template:
            raise ChatTemplateError(
                f"A chat format was asked for, {self.name} has no chat template. Use an "
                "instruction-tuned model, or set tokenizer.chat_template."
            )

    def render(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, generate: bool = True
    ) -> str:
        """Return the text the template makes of the messages, generation prompt included."""
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
                f"Asked to render messages of roles {roles}; the chat template of {self.name} "
                f"refuses them: {error}. Send messages it accepts, or change the template."
            ) from error

    def encode(self, text: str) -> list[int]:
        """Return the ids of all of the text: nothing is added, nothing is cut off."""
        return self._tokenizer.encode(text, add_special_tokens=False, truncation=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the ids, special tokens included."""
        return self._tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
