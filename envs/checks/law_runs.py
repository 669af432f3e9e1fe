"""Gymnasium's own checker and the laws S1 to S12, each fault with its shortest episode."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gymnasium.utils.env_checker import check_env

from treegrpo.envs.checks.result import Counterexample, Result
from treegrpo.envs.checks.shrink import shortest
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.errors import LawViolation, SandboxFailed, SnapshotUnsupported
from treegrpo.envs.law_cases import Case, Checks, Factory
from treegrpo.envs.laws import LAWS, Law, law_name
from treegrpo.envs.snapshot import core_of
from treegrpo.sandboxes.errors import SandboxError

GYMNASIUM = "Gymnasium's checker"
_COLOUR = re.compile(r"\x1b\[\d+m")


def gymnasium_checker(make: Factory) -> Result:
    """Return whether Gymnasium's checker has nothing to say, warnings included."""
    core = core_of(make())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            # Render modes are tried through the id, which an unregistered class has not.
            check_env(core, skip_render_check=core.spec is None)
        except (SandboxFailed, SandboxError):
            raise
        except Exception as error:  # noqa: BLE001 - its findings come as exceptions of any kind
            return Result(GYMNASIUM, "fails", f"{type(error).__name__}: {error}")
    texts = sorted({_COLOUR.sub("", str(warning.message)).strip() for warning in said})
    if texts:
        return Result(GYMNASIUM, "fails", "; ".join(texts))
    return Result(GYMNASIUM, "holds", "no error, no warning")


def laws(cases: Sequence[Case], *, seconds: float) -> list[Result]:
    """Return one result per law, from S1 to S12.

    The laws are tried from the narrowest to the widest, and none after the first that is
    broken: what they would report are its consequences.
    """
    results: dict[str, Result] = {}
    for law in LAWS:
        if any(result.outcome == "fails" for result in results.values()):
            result = Result(law_name(law), "not checked", "another law is broken")
        else:
            result = _result(law, cases, seconds)
        results.setdefault(result.name, result)
    return sorted(results.values(), key=lambda result: int(result.name.split()[0][1:]))


def _result(law: Law, cases: Sequence[Case], seconds: float) -> Result:
    check = Checks(law_name(law))
    fault = _fault(law, cases, check)
    if fault is None:
        if check.note:
            return Result(check.law, "not checked" if not check.count else "holds", check.note)
        return Result(check.law, "holds", f"{check.count} checks")
    name, _, found = fault.partition(": ")
    for case in cases:
        for told in _told_cases(case):
            if _breaks(law, told, name):
                return _shortened(law, told, name, seconds)
    for case in cases:
        if _breaks(law, case, name):
            return _shortened(law, case, name, seconds)
    return Result(name, "fails", found)


@dataclass(frozen=True)
class _Told(Case):
    """A case without chance: whatever else a law does in a fork is the rest of its actions."""

    def detour(self, env: ToolEnv, point: int) -> tuple[str, ...]:
        """Return the recorded actions behind `point`."""
        return self.rest(point)


def _told_cases(case: Case) -> Iterator[Case]:
    """Yield episodes whose actions alone may show a fault that was found in `case`."""
    yield _Told(case.make, case.seed, case.actions)
    for point in case.points:
        detour = case.detour(case.at(point), point)
        yield _Told(case.make, case.seed, (*case.actions[:point], *detour))


def _shortened(law: Law, case: Case, name: str, seconds: float) -> Result:
    def fails(tried: tuple[str, ...]) -> bool:
        return _breaks(law, replace(case, actions=tried), name)

    kept, minimal = shortest(case.actions, fails, seconds=seconds)
    fault = _fault(law, [replace(case, actions=kept)], Checks(law_name(law)))
    found = str(fault).partition(": ")[2].rstrip(".")
    if not isinstance(case, _Told):
        found += " (seen with random actions in forks of this episode)"
    return Result(name, "fails", found, Counterexample(case.seed, kept, minimal=minimal))


def _breaks(law: Law, case: Case, name: str) -> bool:
    fault = _fault(law, [case], Checks(law_name(law)))
    return fault is not None and fault.startswith(f"{name}: ")


def _fault(law: Law, cases: Sequence[Case], check: Checks) -> str | None:
    """Return how the law is broken: "NAME: what was found"; None if it holds."""
    try:
        law(cases, check)
    except LawViolation as error:
        return str(error)
    except SnapshotUnsupported as error:
        # A refusal in the middle of another law breaks the law that there is none.
        blamed = check.law if check.law.startswith("S9") else "S6 totality"
        return f"{blamed}: a snapshot was refused. {error}"
    except (SandboxFailed, SandboxError):
        raise
    except Exception as error:  # noqa: BLE001 - an author's code may raise anything
        return f"{check.law}: {type(error).__name__}: {error}"
    return None
