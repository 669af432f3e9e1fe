"""A workshop with limited resources: look recipes up, gather, craft in the right order.

    env = make("treegrpo/Crafting-v0")
    env = make("treegrpo/Crafting-v0", data="textcraft_test.json")

Nothing can be taken back: a craft uses its parts up, a craft with a part missing spoils the
others, and stocks just suffice. At levels 4 and 5 some crafts break by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.suite.crafting import book as rules
from treegrpo.envs.suite.crafting import oracle, plan, tasks
from treegrpo.envs.suite.crafting.book import Book, Workshop
from treegrpo.envs.suite.crafting.files import load_tasks
from treegrpo.envs.tasks import NUM_TASKS, GeneratedTasks, Task
from treegrpo.envs.tools import tool


class CraftingEnv(ToolEnv):
    """Make an item from limited resources by recipes that have to be looked up.

    Args:
        data: a local file of tasks (AgentGym items or recipe text); None for generated ones.
            The file serves whichever split is asked for.
        settings: of ToolEnv.

    Reward: 1 as soon as the goal is held, else 0.
    """

    splits: ClassVar[tuple[str, ...]] = tasks.SPLITS
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    difficulties: ClassVar[tuple[int, ...]] = tasks.DIFFICULTIES
    max_turns = 48
    max_tool_calls = 64
    system_prompt: ClassVar[str] = (
        "Make what is asked. Resources are limited. A craft uses its parts up; if a part is "
        "missing, the others are spoiled. A fragile craft may break and lose its parts."
    )

    def __init__(self, *, data: str | None = None, **settings: Any) -> None:
        """Make the environment; a file is read here.

        Raises:
            DataFileError: a file that cannot be read.
        """
        self._file_tasks = None if data is None else load_tasks(Path(data))
        if self._file_tasks is not None:
            steps = max(_most_steps(task) for task in self._file_tasks)
            self.max_turns = max(self.max_turns, 2 * steps)
            self.max_tool_calls = max(self.max_tool_calls, 2 * steps)
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the file's tasks, or the generated ones of the split."""
        if self._file_tasks is not None:
            return self._file_tasks
        return GeneratedTasks(
            partial(tasks.make_task, split=split),
            name="Crafting",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> Workshop:
        """Return an empty workshop; calls are capped at twice the oracle's most."""
        self.cap_tool_calls(2 * _most_steps(task))
        return rules.open_workshop(task.data["book"])

    def score(
        self, state: Workshop, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return 1 if the goal is held, else 0."""
        item, count = cast("tuple[str, int]", task.answer)
        return {"goal": float(state.held.get(item, 0) >= count)}

    # ------------------------------------------------------------------------------ the tools

    @tool
    def recipes(self, item: str) -> str:
        """Show how an item is crafted, or how much of a resource is left.

        Args:
            item: name of an item or resource.
        """
        return rules.describe(self._book, self._shop, item.strip())

    @tool
    def inventory(self) -> str:
        """Show what you hold."""
        return f"You hold {rules.listed(self._shop.held.items())}."

    @tool(effects="write")
    def gather(self, resource: str) -> str:
        """Gather one batch of a resource.

        Args:
            resource: name of the resource.
        """
        return rules.gather(self._book, self._shop, resource.strip())

    @tool(effects="write")
    def craft(self, item: str) -> str:
        """Craft an item once from parts that you hold.

        Args:
            item: name of the item.
        """
        reply = rules.craft(self._book, self._shop, item.strip(), self.np_random)
        if self.score(self._shop, (), self.task)["goal"]:
            self.finish("made")
        return reply

    @property
    def _book(self) -> Book:
        return cast("Book", self.task.data["book"])

    @property
    def _shop(self) -> Workshop:
        return cast("Workshop", self.state)

    # ----------------------------------------------------------------------------- the agents

    def oracle(self) -> str:
        """Return the scripted expert's next action for the episode as it stands."""
        said = {m["content"] for m in self.episode.messages if m["role"] == "assistant"}
        looks = {item: self.encode_call("recipes", item=item) for item in self._book.items}
        looked_up = [item for item, action in looks.items() if action in said]
        goal = cast("tuple[str, int]", self.task.answer)
        name, arguments = oracle.next_call(self._book, self._shop, goal, looked_up)
        return self.encode_call(name, **arguments)

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a call with a name of the task."""
        if self._episode is None or rng.random() < 0.2:
            return super().sample_action(rng)
        item = self._book.items[int(rng.integers(len(self._book.items)))]
        resource = self._book.resources[int(rng.integers(len(self._book.resources)))].name
        calls: tuple[tuple[str, dict[str, str]], ...] = (
            ("recipes", {"item": item}),
            ("inventory", {}),
            ("gather", {"resource": resource}),
            ("gather", {"resource": resource}),
            ("craft", {"item": item}),
            ("craft", {"item": item}),
        )
        name, arguments = calls[int(rng.integers(len(calls)))]
        return self.encode_call(name, **arguments)


def _most_steps(task: Task) -> int:
    """Return the most steps that the oracle takes for a task."""
    return plan.num_steps(task.data["book"], task.answer)[1]
