"""All checks of one environment, in the order in which their faults are best understood."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from treegrpo.envs import registry
from treegrpo.envs.checks import cost, episodes, law_runs, leaks, processes
from treegrpo.envs.checks.result import Result
from treegrpo.envs.errors import SandboxFailed, raised_at
from treegrpo.envs.law_cases import Case, Factory, record_cases
from treegrpo.sandboxes.errors import SandboxError

RANDOM_EPISODES = 200
RECORDED = 3
"""Episodes that are recorded for the laws: the oracle's, a mixed one, a random one."""

COST_S = 2.0


def run_checks(
    env: str | Factory,
    *,
    seconds: float = 20.0,
    random_episodes: int = RANDOM_EPISODES,
    seed: int = 0,
) -> Iterator[Result]:
    """Yield one result after the other.

    Args:
        env: an id, a class, or a function without arguments that makes the environment.
        seconds: the most that each open-ended part takes: random episodes, the oracle's
            tasks, the search for the shortest episode, the measurement of cost. What the time
            did not allow is told.
        random_episodes: how many the random agent plays.
        seed: of the first episode; the next ones count up.

    Raises:
        TreegrpoError: no such environment, or it cannot be made.
        SandboxError, SandboxFailed: the host cannot run what the environment needs.
    """
    make: Factory = (lambda: registry.make(env)) if isinstance(env, str) else env
    make().close()
    first = episodes.reachability(make, episodes=random_episodes, seconds=seconds, seed=seed)
    yield first
    if first.outcome == "fails":
        yield Result("all other checks", "not checked", "episodes that raise cannot be recorded")
        return
    yield law_runs.gymnasium_checker(make)
    try:
        cases = record_cases(make, episodes=RECORDED, seed=seed, actions=None)
    except Exception as error:  # noqa: BLE001 - an author's oracle may raise anything
        yield _raised(episodes.ORACLE, error)
        return
    for name, check in _checks(make, cases, seconds, seed):
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - an author's code may raise anything
            yield _raised(name, error)


def _checks(
    make: Factory, cases: Sequence[Case], seconds: float, seed: int
) -> list[tuple[str, Callable[[], list[Result]]]]:
    return [
        ("laws", lambda: law_runs.laws(cases, seconds=seconds)),
        (
            processes.DETERMINISM,
            lambda: [processes.determinism(make, episodes=RECORDED, seed=seed)],
        ),
        (episodes.GRADER, lambda: [episodes.grader_purity(cases, seconds=seconds)]),
        (episodes.ORACLE, lambda: episodes.oracle_solves(make, seconds=seconds, seed=seed)),
        (leaks.LEAKS, lambda: [leaks.leaks(cases[0])]),
        (cost.SNAPSHOT, lambda: cost.cost(cases, seconds=min(seconds, COST_S))),
    ]


def _raised(name: str, error: Exception) -> Result:
    """Return an exception as a failed check; a sandbox that failed goes on to the caller."""
    if isinstance(error, (SandboxFailed, SandboxError)):
        raise error
    where = raised_at(error.__cause__ or error)
    return Result(name, "fails", f"{type(error).__name__} at {where}: {error}")
