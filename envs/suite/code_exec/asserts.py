"""Assert statements as checks whose answers stay outside the sandbox.

`assert f(2) == [1, 2]` becomes the expression `f(2)`, to be computed in the sandbox, and the
value [1, 2], which never enters it. What has no such form (loops, random inputs, comparisons
of two results) stays code that is run inside, marked as such: a submission could tamper with
it.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from treegrpo.envs.digest import canonical_json
from treegrpo.envs.suite.code_exec.checks import Check, Exam, Inside, Outside, Rule

_BUILTINS = frozenset(dir(builtins))


def exam_of_asserts(tests: Sequence[ast.Module], code: ast.Module, setup: ast.Module) -> Exam:
    """Return the exam of tests in the form of MBPP.

    Args:
        tests: each one or more statements, mostly one assert.
        code: the reference solution; what it defines is what the tests call.
        setup: imports and helpers of the tests; run behind the submission, as it may use it.
    """
    helpers = defined_names(setup)
    candidates = defined_names(code) - helpers
    stands_alone = not names_used(setup) & candidates
    # What a helper made with the submission says is no answer to compare with.
    asked = candidates if stands_alone else candidates | helpers
    checks: list[Check] = []
    for test in tests:
        checks += _checks(test.body, asked, helpers) or [Inside(ast.unparse(test))]
    setup_code = ast.unparse(setup)
    before = setup_code if stands_alone else ""
    return Exam(tuple(checks), before=before, after=setup_code, stands_alone=stands_alone)


def exam_of_function(test: ast.Module, entry_point: str, *, before: str) -> Exam | None:
    """Return the exam of a test in the form of HumanEval, or None if it checks nothing.

    Args:
        test: defines check(candidate), whose body are the asserts.
        entry_point: the name of the function under test.
        before: code that comes before every submission.
    """
    found = [n for n in test.body if isinstance(n, ast.FunctionDef) and n.name == "check"]
    if not found or len(found[0].args.args) != 1:
        return None
    function = found[0]
    helpers = ast.Module([node for node in test.body if node is not function], [])
    parameter = function.args.args[0].arg
    known = defined_names(helpers) | defined_names(ast.parse(before))
    checks: list[Check] = []
    is_whole = True
    for statement in function.body:
        converted = _checks([statement], {parameter}, known - {entry_point})
        is_whole = is_whole and converted is not None
        checks += [_renamed(check, parameter, entry_point) for check in converted or []]
    if not is_whole:
        checks.append(Inside(f"{ast.unparse(function)}\ncheck({entry_point})"))
    if not checks:
        return None
    return Exam(tuple(checks), before=before, after=ast.unparse(helpers))


def _checks(
    body: Sequence[ast.stmt], candidates: Collection[str], known: Collection[str]
) -> list[Outside] | None:
    """Return the outside form of statements, or None if one of them has none."""
    found: list[Outside] = []
    for statement in body:
        if always_true(statement):
            continue
        if not isinstance(statement, ast.Assert):
            return None
        check = convert_assert(statement, candidates=candidates, known=known)
        if check is None:
            return None
        found.append(check)
    return found


def _renamed(check: Outside, old: str, new: str) -> Outside:
    """Return a check that calls the code under test by another name."""
    tree = ast.parse(check.expression, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == old:
            node.id = new
    return replace(check, expression=ast.unparse(tree))


def convert_assert(
    statement: ast.Assert, *, candidates: Collection[str], known: Collection[str]
) -> Outside | None:
    """Return the outside form of an assert statement, or None if it has none.

    Args:
        statement: as parsed.
        candidates: the names under which the test calls the code under test.
        known: other names that exist by then (imports and functions of the test itself).
    """
    test = statement.test
    negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    inner = test.operand if isinstance(test, ast.UnaryOp) and negated else test
    sides = _Sides(frozenset(candidates), frozenset(known) | _BUILTINS)
    found: Outside | None = None
    if isinstance(inner, ast.Compare) and len(inner.ops) == 1:
        found = None if negated else sides.compare(inner)
    elif (close := sides.is_close(inner)) is not None:
        found = None if negated else close
    elif sides.is_asked(inner) and not isinstance(inner, (ast.Compare, ast.BoolOp)):
        found = Outside(f"bool({ast.unparse(inner)})", not negated, "same")
    return found


def always_true(statement: ast.stmt) -> bool:
    """Return whether a statement checks and changes nothing: `assert True`, `pass`, a text."""
    if isinstance(statement, ast.Assert):
        return isinstance(statement.test, ast.Constant) and bool(statement.test.value)
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def defined_names(tree: ast.Module) -> set[str]:
    """Return the names that a module's own level binds."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            found |= set(_bound(node))
    return found


def names_used(node: ast.AST) -> set[str]:
    """Return the names an expression or statement takes from around it."""
    inside = set(_bound(node))
    loaded = {
        name.id
        for name in ast.walk(node)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)
    }
    return loaded - inside


def _bound(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id
        elif isinstance(part, ast.arg):
            yield part.arg


@dataclass(frozen=True)
class _Sides:
    """Tells the side of a comparison that asks the code under test from the one that knows."""

    candidates: frozenset[str]
    known: frozenset[str]

    def is_asked(self, node: ast.expr) -> bool:
        used = names_used(node)
        return bool(used & self.candidates) and used <= self.candidates | self.known

    def is_answer(self, node: ast.expr) -> bool:
        return names_used(node) <= self.known - self.candidates

    def split(self, one: ast.expr, other: ast.expr) -> tuple[ast.expr, ast.expr] | None:
        """Return the side that asks and the side that answers, if there is one of each."""
        for asked, answer in ((one, other), (other, one)):
            if self.is_asked(asked) and self.is_answer(answer):
                return asked, answer
        return None

    def compare(self, test: ast.Compare) -> Outside | None:
        operator, right = test.ops[0], test.comparators[0]
        if isinstance(operator, (ast.Lt, ast.LtE)):
            return self._distance(test.left, right)
        if isinstance(operator, (ast.Gt, ast.GtE)):
            return self._distance(right, test.left)
        rules: dict[type[ast.cmpop], Rule] = {
            ast.Eq: "equal",
            ast.NotEq: "unequal",
            ast.Is: "same",
        }
        sides, rule = self.split(test.left, right), rules.get(type(operator))
        if sides is None or rule is None:
            return None
        return _outside(sides[0], sides[1], rule)

    def _distance(self, small: ast.expr, bound: ast.expr) -> Outside | None:
        """Return the check for abs(f(x) - value) < bound."""
        limit = _literal(bound)
        if not (isinstance(small, ast.Call) and _is_named(small.func, ("abs", "fabs"))):
            return None
        inner = small.args[0] if len(small.args) == 1 else None
        if not (isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub)):
            return None
        sides = self.split(inner.left, inner.right)
        if sides is None or not isinstance(limit, (int, float)):
            return None
        return _outside(sides[0], sides[1], "close", tolerance=float(limit))

    def is_close(self, test: ast.expr) -> Outside | None:
        """Return the check for math.isclose(f(x), value, ...)."""
        if not (isinstance(test, ast.Call) and _is_named(test.func, ("isclose",))):
            return None
        options = {keyword.arg: _literal(keyword.value) for keyword in test.keywords}
        sides = self.split(test.args[0], test.args[1]) if len(test.args) == 2 else None
        allowed = {"rel_tol": 1e-9, "abs_tol": 0.0}
        if sides is None or not set(options) <= set(allowed):
            return None
        limits = allowed | {str(name): value for name, value in options.items()}
        if not all(isinstance(value, (int, float)) for value in limits.values()):
            return None
        return _outside(
            sides[0],
            sides[1],
            "close",
            tolerance=float(limits["abs_tol"]),
            relative=float(limits["rel_tol"]),
        )


def _outside(
    asked: ast.expr,
    answer: ast.expr,
    rule: Rule,
    *,
    tolerance: float = 0.0,
    relative: float = 0.0,
) -> Outside:
    expression = ast.unparse(asked)
    value = _literal(answer)
    if value is _NO_LITERAL:
        reference = ast.unparse(answer)
        return Outside(expression, None, rule, tolerance, relative, reference)
    return Outside(expression, value, rule, tolerance, relative)


_NO_LITERAL = object()


def _literal(node: ast.expr) -> Any:
    """Return the value that a literal spells, if it can be digested as part of a task."""
    try:
        value = ast.literal_eval(node)
        canonical_json(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _NO_LITERAL
    return value


def _is_named(function: ast.expr, names: Sequence[str]) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr in names
    return isinstance(function, ast.Name) and function.id in names
