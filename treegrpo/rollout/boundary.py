"""The boundary to the environments: the one place where their failures become data.

Nothing that a model writes may stop a run. What an environment or its grader raises while a
question is posed, forked or answered is attributed, told in one line and counted; the run
goes on without that rollout. Only a TreegrpoError at reset (a wrong option, a state that
cannot be captured at all) is the user's to mend, and passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import gymnasium

from treegrpo.envs.core import Message
from treegrpo.envs.errors import GraderFailed, SandboxFailed, TreegrpoError
from treegrpo.envs.snapshot import Snapshot, core_of, snapshot
from treegrpo.rollout.environments import EnvironmentPool
from treegrpo.rollout.starts.base import Turn
from treegrpo.tree import Failure

MAX_FAULT_CHARS = 500


@dataclass(frozen=True)
class Opening:
    """A question as posed: all that its trees share."""

    task_id: str
    difficulty: int
    question: str
    messages: list[Message]
    snapshot: Snapshot
    """Where the trees begin: at the reset, or behind `turns`."""
    turns: list[Turn] = field(default_factory=list[Turn])
    """Turns taken since the reset; the trees take them as context."""


@dataclass(frozen=True)
class Fault:
    """An environment that could not pose or fork a question, in one line, and whose fault."""

    message: str
    failure: str = "environment"


@dataclass(frozen=True)
class Answer:
    """What came back from the environment for one action."""

    observation: str = ""
    messages: list[Message] = field(default_factory=list[Message])
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    end_reason: str | None = None
    failure: Failure | None = None
    tool_calls: int = 0
    state_hash: str = ""
    snapshot: Snapshot | None = None

    @property
    def ended(self) -> bool:
        """Whether the episode is over."""
        return self.terminated or self.truncated


def pose(
    pool: EnvironmentPool,
    seed: int,
    options: dict[str, Any],
    begin: Callable[[gymnasium.Env[str, str]], list[Turn]] | None = None,
) -> Opening | Fault:
    """Return the question that a reset poses, or how the environment failed.

    Args:
        pool: lends the environment that is reset.
        seed: of the reset.
        options: of the reset.
        begin: moves the environment from its reset to where the trees begin, if not there.

    Raises:
        TreegrpoError: wrong options, a state that cannot be captured, or a start state that
            the environment cannot give: the user's to mend.
    """
    try:
        env = pool.spare()
        try:
            opening = _open(env, seed, options, begin)
        except BaseException:
            pool.discard(env)
            raise
        pool.give(env)
        return opening
    except SandboxFailed as error:
        return Fault(str(error)[:MAX_FAULT_CHARS], "sandbox")
    except TreegrpoError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a failing rollout is data
        return Fault(_told(error))


def _open(
    env: gymnasium.Env[str, str],
    seed: int,
    options: dict[str, Any],
    begin: Callable[[gymnasium.Env[str, str]], list[Turn]] | None,
) -> Opening:
    _, info = env.reset(seed=seed, options=options)
    messages = _checked(info["messages"])
    if not messages:
        raise ValueError("reset gave no message to begin with")
    task = core_of(env).task
    turns = begin(env) if begin is not None else []
    return Opening(
        task_id=str(info["task_id"]),
        difficulty=int(info["difficulty"]),
        question=task.question,
        messages=messages,
        snapshot=snapshot(env),
        turns=turns,
    )


def render(ids: Callable[[], list[int]]) -> list[int] | Fault:
    """Return the ids that messages become, or why the chat template refuses them."""
    try:
        return ids()
    except Exception as error:  # noqa: BLE001 - the boundary: messages are the environment's
        return Fault(_told(error))


def branch_off(
    pool: EnvironmentPool, at: Snapshot, seed: int | None
) -> gymnasium.Env[str, str] | Fault:
    """Return an environment at a snapshot, or why it could not be forked."""
    try:
        return pool.take(at, seed=seed)
    except SandboxFailed as error:
        return Fault(str(error)[:MAX_FAULT_CHARS], "sandbox")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a failing rollout is data
        return Fault(_told(error))


def answer(
    env: gymnasium.Env[str, str], action: str, *, tool_calls_left: int | None, keep: bool
) -> Answer:
    """Return what the environment answers to an action; its failure is an answer, too.

    Args:
        env: an environment of the pool, its episode not over.
        action: the assistant's text.
        tool_calls_left: hard limit on the calls of this and all later steps; None for none.
        keep: whether the state after the step will be forked and so needs a snapshot.
    """
    before = core_of(env).episode.tool_calls
    try:
        return _step(env, action, before, tool_calls_left, keep)
    except GraderFailed as error:
        failure, fault = "grader", str(error)[:MAX_FAULT_CHARS]
    except SandboxFailed as error:
        failure, fault = "sandbox", str(error)[:MAX_FAULT_CHARS]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a failing rollout is data
        failure, fault = "environment", _told(error)
    return failed(failure, fault, tool_calls=_tool_calls(env, before) - before)


def failed(who: Failure, message: str, *, tool_calls: int = 0) -> Answer:
    """Return the answer that stands for a failure: the episode is cut, and counts for nobody."""
    return Answer(
        observation=message,
        truncated=True,
        end_reason=f"{who}_failed",
        failure=who,
        tool_calls=tool_calls,
    )


def _step(
    env: gymnasium.Env[str, str], action: str, before: int, left: int | None, keep: bool
) -> Answer:
    core = core_of(env)
    if left is not None:
        core.cap_tool_calls(before + left)
    observation, given, is_terminated, is_truncated, info = env.step(action)
    reward, terminated, truncated = float(given), bool(is_terminated), bool(is_truncated)
    if not math.isfinite(reward):
        raise GraderFailed(f"The reward is {reward}, which is not finite.")
    reason = info["end_reason"]
    if not (reason is None or isinstance(reason, str)):
        raise TypeError(f"end_reason must be a text or None, found {reason!r}")
    if truncated and reason is None:
        reason = "step_limit"  # a wrapper's, such as TimeLimit: the environment knows nothing
    elif reason == "tool_call_limit" and core.episode.max_tool_calls < core.max_tool_calls:
        reason = "budget"  # ours, not the environment's own
    after = snapshot(env) if keep and not (terminated or truncated) else None
    return Answer(
        observation=str(observation),
        messages=_checked(info["messages"]),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        end_reason=reason,
        tool_calls=core.episode.tool_calls - before,
        state_hash=core.state_hash() if after is None else after.hash,
        snapshot=after,
    )


def _checked(messages: Sequence[Message]) -> list[Message]:
    """Return the messages if a chat template can render them; raise TypeError if not."""
    for message in cast("Sequence[Any]", messages):
        if not (isinstance(message["role"], str) and isinstance(message["content"], str)):
            raise TypeError(f"a message must hold role and content as text, found {message!r}")
        message["content"].encode()  # half a surrogate pair is no text that can be tokenized
    return list(messages)


def _tool_calls(env: gymnasium.Env[str, str], before: int) -> int:
    """Return the calls counted so far, or `before` where the failure took the episode away."""
    try:
        return core_of(env).episode.tool_calls
    except TreegrpoError:
        return before


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_FAULT_CHARS]
