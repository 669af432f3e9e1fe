"""What a start state is: where the trees of a question begin, and the table of their names.

    @start_state("after_one")
    class AfterOne(StartState):
        def begin(self, env, question_seed, rng):
            *_, info = env.step("look around")
            return [Turn("look around", info["messages"])]

All trees of a question begin at the same state, so that comparing them is fair. The turns taken
before it become context of the root: the policy sees them, and none of their tokens is trained.
There is one object per run. It may learn from the trees, and its state goes into checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

import gymnasium
import numpy as np
from pydantic import BaseModel, JsonValue, ValidationError

from treegrpo.envs.episode import Message
from treegrpo.envs.errors import TreegrpoError
from treegrpo.names import Names
from treegrpo.rollout.expansion.options import STRICT, read_options
from treegrpo.tree import Tree

M = TypeVar("M", bound=BaseModel)
S = TypeVar("S", bound="StartState")


@dataclass(frozen=True)
class Turn:
    """One turn that was taken before the root."""

    action: str
    messages: list[Message]
    """The environment's answer."""
    ids: list[int] | None = None
    """Token ids of the action where a policy sampled them; None: the text is all there is."""
    observation_ids: list[int] | None = None
    """Token ids that followed them, with the next generation prompt."""


class NoOptions(BaseModel):
    """The options of a start state that has none."""

    model_config = STRICT


class StartState:
    """Where the trees of each question begin: by default at its reset."""

    name: ClassVar[str] = ""
    """Set by the decorator."""

    def __init__(self, **options: JsonValue) -> None:
        """Refuse every option; a start state that has some reads them with `_read`."""
        self._read(NoOptions, options)

    def question(
        self, seed: int, options: Mapping[str, Any], rng: np.random.Generator
    ) -> tuple[int, dict[str, Any]] | None:
        """Return the question to pose instead, as seed and options of its reset; None: this one.

        Called before the reset, and followed by `begin`. `rng` is a stream of this question's own.
        """
        return None

    def begin(
        self, env: gymnasium.Env[str, str], question_seed: int, rng: np.random.Generator
    ) -> list[Turn]:
        """Move `env` to where the question's trees begin; return the turns that lead there.

        Called once for a question, by any thread and in any order, which must not matter. What
        the environment raises passes: it is attributed like a reset that fails.

        Args:
            env: stands at a reset, wrappers and all; its episode must not be over in the end.
            question_seed: seed the question was posed with, after `question` had its say.
            rng: a stream of this question's own, another than that of `question`.
        """
        return []

    def observe(self, questions: Sequence[Sequence[Tree]]) -> None:
        """Learn from the trees of a step, by question."""

    def state(self) -> JsonValue:
        """Return all that was learned, as plain data for a checkpoint."""
        return None

    def load(self, state: JsonValue) -> None:
        """Go on from what `state` returned, to the last bit.

        Raises:
            TreegrpoError: the state of something else.
        """

    def _read(self, model: type[M], options: Mapping[str, JsonValue]) -> M:
        """Return the options that were given, checked against their model."""
        return read_options(model, options, "start_options", f"start state '{self.name}'")

    def _restored(self, model: type[M], state: JsonValue) -> M:
        """Return a checkpoint's state, checked against its model."""
        try:
            return model.model_validate(state)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(map(str, fault["loc"])) or "the whole"
            raise TreegrpoError(
                f"Start state '{self.name}' asked to go on from a checkpoint, but its state there "
                f"is of another kind ({where}: {fault['msg']}). Start the run anew in another "
                "out folder."
            ) from None


STARTS: Names[type[StartState]] = Names("start state")


def start_state(name: str) -> Callable[[type[S]], type[S]]:
    """Return a decorator that registers a start state.

    Raises:
        TreegrpoError: the name is taken; or what is decorated is no StartState.
    """

    def register(start: type[S]) -> type[S]:
        found = cast("object", start)
        if not (isinstance(found, type) and issubclass(found, StartState)):
            raise TreegrpoError(
                f"Start state '{name}' asked to be registered, but {found!r} is no subclass of "
                "StartState. Write class Mine(StartState): with begin()."
            )
        STARTS.add(name)(start)
        start.name = name
        return start

    return register


def get_start_state(name: str, options: Mapping[str, JsonValue]) -> StartState:
    """Return a new object of that name, which has learned nothing yet.

    Raises:
        UnknownOption: no such start state, with the closest name; or a wrong option.
    """
    return STARTS.get(name)(**options)
