"""Leave a random sample of a cosmic-ray session's mutants to run; see docs/mutation_testing.md.

    python tests/mutation/sample.py SESSION.sqlite SIZE SEED

What stands in an annotation is not drawn from: `int | None` is no arithmetic, and never runs.
"""

import ast
import random
import sqlite3
import sys
from functools import cache
from pathlib import Path

Span = tuple[tuple[int, int], tuple[int, int]]


@cache
def annotations(module: str) -> list[Span]:
    """Return where a module's annotations begin and end, as (line, column)."""
    found: list[Span] = []
    for node in ast.walk(ast.parse(Path(module).read_text())):
        for name in ("annotation", "returns"):
            at = getattr(node, name, None)
            if isinstance(at, ast.expr) and at.end_lineno and at.end_col_offset:
                found.append(
                    ((at.lineno, at.col_offset), (at.end_lineno, at.end_col_offset)),
                )
    return found


def main(session: str, size: str, seed: str) -> None:
    """Delete from the session what was not drawn, and print the counts."""
    with sqlite3.connect(session) as database:
        rows = database.execute(
            "select job_id, module_path, start_pos_row, start_pos_col from mutation_specs"
            " order by module_path, start_pos_row, start_pos_col, operator_name, occurrence"
        ).fetchall()
        jobs = [
            job
            for job, module, line, column in rows
            if not any(begin <= (line, column) < end for begin, end in annotations(module))
        ]
        drawn = set(random.Random(int(seed)).sample(jobs, min(int(size), len(jobs))))
        for job in {row[0] for row in rows} - drawn:
            for table in ("mutation_specs", "work_items"):
                database.execute(f"delete from {table} where job_id = ?", (job,))
    sys.stdout.write(f"{len(rows)} mutants, {len(jobs)} outside annotations, {len(drawn)} drawn\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
