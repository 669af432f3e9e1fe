"""What a conformance case works with: a bench, counted checks, and what came of it.

A case is a function of a bench and of checks; its docstring is the statement that is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from treegrpo.sandboxes.base import Capabilities, Level, Limits, Result, SandboxSpec
from treegrpo.sandboxes.conformance.bait import Bait
from treegrpo.sandboxes.errors import SandboxError

if TYPE_CHECKING:
    from treegrpo.sandboxes import Backend, Sandbox

Status = Literal["holds", "fails", "open", "skipped"]
# Seconds for what must come or go soon. Only a hang takes as long, also where the host is busy.
PATIENCE_S = 60.0


class Violation(AssertionError):
    """A statement that does not hold; the message says what was found."""


class NotHere(RuntimeError):
    """A case that this host or backend cannot be asked; the message is the reason."""


@dataclass(frozen=True)
class Bench:
    """A backend under test, how to open another of its kind, and a private folder."""

    backend: Backend
    reopen: Callable[[], Backend]
    home: Path  # the folder that TMPDIR points at while the suite runs
    bait: Bait  # what is planted for attacks to find
    capabilities: Capabilities
    level: Level  # that its sandboxes have
    other: Sandbox  # of a tree that lives beside all cases, and holds a secret
    baseline: int = 0  # processes of the backend when it has no tree
    rounds: float = 1.0  # scales the number of random programs and of repetitions

    def spec(self, **changes: Any) -> SandboxSpec:
        """Return a specification for this level; keywords change fields, those of limits too."""
        limits = {name: changes.pop(name) for name in tuple(changes) if name in Limits.model_fields}
        given = {"min_level": self.level, "limits": Limits(**limits), **changes}
        return SandboxSpec.model_validate(given)

    @contextmanager
    def sandbox(self, **changes: Any) -> Generator[Sandbox]:
        """Yield the root of a new tree, which is closed at the end."""
        root = self.backend.create(self.spec(**changes))
        try:
            yield root
        finally:
            root.tree.close()

    def times(self, count: int) -> int:
        """Return `count`, scaled; at least 1."""
        return max(1, round(count * self.rounds))


@dataclass
class Checks:
    """Counts the checks of one case; raises Violation on the first that fails."""

    count: int = 0
    notes: list[str] = field(default_factory=list[str])

    def that(self, holds: bool, otherwise: str) -> None:
        """Count one check; `otherwise` says what was found if it does not hold."""
        self.count += 1
        if not holds:
            raise Violation(otherwise)

    def same(self, expected: object, got: object, what: str) -> None:
        """Count one check that two values are equal."""
        self.that(expected == got, f"{what}: expected {brief(expected)}, got {brief(got)}")

    def raises(
        self, kinds: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]
    ) -> Exception:
        """Return the error that `call` raises; a violation if it is of no such kind."""
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        names = " or ".join(kind.__name__ for kind in wanted)
        self.count += 1
        try:
            got = call()
        except wanted as error:
            return error
        except Exception as error:
            raise Violation(f"expected {names}, got {type(error).__name__}: {error}") from error
        raise Violation(f"expected {names}, got {brief(got)}")

    def runs(self, box: Sandbox, code: str, **options: Any) -> Result:
        """Return the result of code that must run to its end."""
        result = box.exec(code, **options)
        self.that(result.ok, f"{brief(code)}: expected ok, got {brief(result)}")
        return result

    def value(self, expected: str | None, box: Sandbox, code: str, **options: Any) -> None:
        """Check the repr that the code's last expression has."""
        self.same(expected, self.runs(box, code, **options).value, f"value of {brief(code)}")

    def empties(self, left: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> None:
        """Wait until `left()` is empty; a violation that shows it when it is not in time."""
        end = time.monotonic() + within_s
        while (found := left()) and time.monotonic() < end:
            time.sleep(0.01)
        self.that(not found, f"{what}, after {within_s} s: {brief(found)}")


@dataclass(frozen=True)
class Case:
    """One named statement about every backend, and the function that checks it."""

    name: str
    group: str  # function, fork or abuse
    statement: str
    check: Callable[[Bench, Checks], None]
    row: str = ""  # of the reference's tables: F3, 12
    holds_from: Level | None = Level.L1  # None: from no level
    below: str = ""  # what is so at lower levels
    zygote: Literal["bare", "numpy"] = "bare"  # that the case needs
    runs_below: bool = True  # whether it may be tried at a level that does not promise it


@dataclass(frozen=True)
class Outcome:
    """What came of one case: it holds, fails, is open by declaration, or was skipped."""

    name: str
    group: str
    row: str
    statement: str
    status: Status
    checks: int
    seconds: float
    detail: str = ""  # what was found
    declared: str = ""  # of an open case: what is so at this level, by its data


def case_of(check: Callable[[Bench, Checks], None], group: str, **fields: Any) -> Case:
    """Return the case a function is: its name with dashes, its docstring the statement."""
    name = getattr(check, "__name__", "").replace("_", "-")
    return Case(name, group, " ".join((check.__doc__ or "").split()), check, **fields)


def run_case(case: Case, bench: Bench) -> Outcome:
    """Return what came of a case; nothing that it meets is raised."""
    started = time.monotonic()
    checks = Checks()
    promised = case.holds_from is not None and bench.level >= case.holds_from
    try:
        if not promised and not case.runs_below:
            raise NotHere("not tried at this level")
        case.check(bench, checks)
    except NotHere as reason:
        status, detail = ("skipped" if promised else "open"), str(reason)
    except Exception as error:  # noqa: BLE001 - the boundary: each failure becomes an outcome
        status, detail = ("fails" if promised else "open"), f"{type(error).__name__}: {error}"
    else:
        status, detail = "holds", "; ".join(checks.notes)
    return Outcome(
        case.name,
        case.group,
        case.row,
        case.statement,
        status,
        checks.count,
        round(time.monotonic() - started, 3),
        detail,
        case.below if status == "open" else "",
    )


def first_fork(box: Sandbox) -> Sandbox:
    """Return one fork; the error that stands in its place is raised."""
    (fork,) = box.fork()
    if isinstance(fork, SandboxError):
        raise fork
    return fork


def brief(value: object, size: int = 400) -> str:
    """Return the repr of a value, cut in the middle."""
    text = repr(value)
    return text if len(text) <= size else f"{text[: size // 2]} ... {text[-size // 2 :]}"
