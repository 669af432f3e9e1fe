"""A shop to search, browse and order in: pages as short texts, and an order that is final.

    env = make("treegrpo/WebShop-v0")

Levels 1 to 5 go from one thing and one click to three things, a login, a coupon to find and a
form to fill. The shop itself is immutable and shared; a fork copies only the visit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast

import numpy as np

from treegrpo.envs.core import Message, Task, ToolEnv
from treegrpo.envs.errors import UnknownOption
from treegrpo.envs.suite.web_shop import oracle, tasks
from treegrpo.envs.suite.web_shop.catalogue import Shop
from treegrpo.envs.suite.web_shop.draws import Draws
from treegrpo.envs.suite.web_shop.file_goals import FileGoal, file_share
from treegrpo.envs.suite.web_shop.files import FileShop, load_shop
from treegrpo.envs.suite.web_shop.goals import Goal, share_met
from treegrpo.envs.suite.web_shop.session import Rules, Session
from treegrpo.envs.suite.web_shop.shops import BRANDS, FAMILY_OF, build_shop
from treegrpo.envs.suite.web_shop.site import ORDERED, Site
from treegrpo.envs.tasks import NUM_TASKS, GeneratedTasks
from treegrpo.envs.tools import tool

FILE_CALLS = 24
"""Tool calls for an instruction of a file."""
PAGES = ("home", "cart", "checkout", "offers", "login")
"""Where the random agent goes."""


class WebShopEnv(ToolEnv):
    """Order what an instruction asks for; the reward is the share of it that the order meets."""

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    difficulties: ClassVar[tuple[int, ...]] = tasks.DIFFICULTIES
    max_turns = max(tasks.BUDGETS.values())
    max_tool_calls = max(tasks.BUDGETS.values())
    system_prompt: ClassVar[str] = (
        "Order what is asked for in the shop. On a page [x] can be clicked and <x> can be "
        "typed into. An order is final."
    )

    def __init__(
        self,
        *,
        render_mode: str | None = None,
        format: str = "hermes",
        data: str | None = None,
        attributes: str | None = None,
        instructions: str | None = None,
    ) -> None:
        """Make the environment.

        Args:
            render_mode: "ansi" or None.
            format: how actions spell tool calls, "hermes" or "xml".
            data: path of a file of products (WebShop's items); None for generated shops.
            attributes: path of items_ins_v2, if the products carry no attributes.
            instructions: path of items_human_ins, if the products carry no instructions.

        Raises:
            UnknownOption: `attributes` or `instructions` without `data`.
            DataFileError: a file that cannot be read.
        """
        for name, value in (("attributes", attributes), ("instructions", instructions)):
            if data is None and value is not None:
                raise UnknownOption(
                    f"{name}={value!r} of WebShop asked for, but no data was given that it could "
                    f"belong to. Give data=<path of a file of products> too, or leave {name} out."
                )
        super().__init__(render_mode=render_mode, format=format)
        self._file: FileShop | None = None
        if data is not None:
            self._file = load_shop(
                Path(data),
                attributes=Path(attributes) if attributes is not None else None,
                instructions=Path(instructions) if instructions is not None else None,
            )
        self._file_tasks = _by_split(self._file, self.splits)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split: generated one by one, or the file's of these words."""
        if self._file is not None:
            return self._file_tasks[split]
        return GeneratedTasks(
            functools.partial(tasks.make_task, split=split),
            name="WebShop",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> Session:
        """Return a visit that has just begun; the level decides the budget of calls."""
        self.cap_tool_calls(task.data["max_calls"])
        return Session()

    def prompt(self, task: Task) -> str:
        """Return the instruction and the page that the visit begins at."""
        home = Site(self._shop_of(task), task.data["rules"], Session()).page()
        return f"{task.question}\n\n{home.text}"

    def score(
        self, state: Session, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return the share of the instruction that the order meets; 0 without an order."""
        if state.order is None:
            return {"match": 0.0}
        goal = cast("Goal | FileGoal", task.answer)
        if isinstance(goal, FileGoal):
            return {"match": file_share(goal, state.order, self._shop_of(task))}
        return {"match": share_met(goal, state.order, self._shop_of(task))}

    # ------------------------------------------------------------------------------ the tools

    @tool(effects="write")
    def search(self, query: str) -> str:
        """Search the shop for words such as a kind of thing and what it is like.

        Args:
            query: the words.
        """
        self._site.search(query)
        return self._shown()

    @tool(effects="write")
    def click(self, element: str) -> str:
        """Click something on the page.

        Args:
            element: its name, as it stands in [brackets].
        """
        self._site.click(element)
        if self._session.order is not None:
            self.finish("ordered")
            return ORDERED
        return self._shown()

    @tool(effects="write")
    def type(self, field: str, text: str) -> str:
        """Type a text into a field of the page, in place of what was there.

        Args:
            field: its name, as it stands in <brackets>.
            text: the text.
        """
        self._site.type_in(field, text)
        return self._shown()

    @tool(effects="write")
    def back(self) -> str:
        """Go back to the page before."""
        self._site.back()
        return self._shown()

    @tool(effects="write")
    def goto(self, page: str) -> str:
        """Open a page by its name: home, cart, checkout, offers, login, or a product's id.

        Args:
            page: the name or the id.
        """
        self._site.goto(page)
        return self._shown()

    def _shown(self) -> str:
        return self._site.page().text

    @property
    def _session(self) -> Session:
        return cast("Session", self.state)

    @property
    def _site(self) -> Site:
        return Site(self._shop_of(self.task), self._rules, self._session)

    @property
    def _rules(self) -> Rules:
        return cast("Rules", self.task.data["rules"])

    def _shop_of(self, task: Task) -> Shop:
        number: int | None = task.data["shop"]
        if number is not None:
            return build_shop(number)
        assert self._file is not None, "only tasks of a file have no shop of a number"
        return self._file.shop

    # ----------------------------------------------------------------------------- the agents

    def oracle(self) -> str:
        """Return the scripted expert's next action for the visit as it stands."""
        step = oracle.next_step(self._site, self.task.answer)
        return self.encode_call(step.tool, **step.arguments)

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly what the page offers, or a search."""
        if self._episode is None or rng.random() < 0.15:
            return super().sample_action(rng)
        draws, page = Draws(rng), self._site.page()
        if page.fields and draws.chance(0.3):
            return self.encode_call("type", field=draws.pick(page.fields), text=draws.pick(BRANDS))
        if draws.chance(0.15):
            return self.encode_call("search", query=draws.pick(list(FAMILY_OF)))
        if draws.chance(0.05):
            return self.encode_call("back")
        if draws.chance(0.05) or not page.links:
            return self.encode_call("goto", page=draws.pick(PAGES))
        return self.encode_call("click", element=draws.pick(list(page.links)))


def _by_split(file: FileShop | None, splits: Sequence[str]) -> dict[str, list[Task]]:
    """Return the tasks of a file, each in the split that its words decide."""
    made: dict[str, list[Task]] = {split: [] for split in splits}
    for goal in file.goals if file is not None else ():
        data = {"shop": None, "rules": Rules(), "max_calls": FILE_CALLS}
        task = Task(id=goal.id, question=goal.text, answer=goal, data=data)
        made[tasks.split_of(goal.text)].append(task)
    return made
