"""benchmarks.env_overhead: its numbers on rows made by hand, its games, its judge, its peers."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from benchmarks import _overhead_peers as peers
from benchmarks import env_overhead
from benchmarks._overhead_games import Game, difference, games
from benchmarks._overhead_ours import kind_of, subject
from benchmarks._overhead_peer_envs import PEERS, Entry, Moment
from benchmarks._overhead_peer_side import answer, judge
from benchmarks._overhead_peer_side import measure as measure_entry
from benchmarks._overhead_rows import OURS, Row, Spread, lines, metric_name, metrics, ratios
from benchmarks.env_overhead import Effort, Report, measure, show, write
from treegrpo.envs import make
from treegrpo.envs.snapshot import core_of

ROOT = Path(__file__).resolve().parents[3]
SHORT = Effort(rounds=2, seconds=0.0, episodes=3)

# -------------------------------------------------------------------------------- the numbers


def shot(ms: float) -> Spread:
    return Spread(ms, 2 * ms, 10)


def ours(number: int, step_s: float, ms: float, game: str | None = None) -> Row:
    return Row(OURS, "treegrpo/SQL-v0", "SQLite", number, 100, step_s, 7, shot(ms), shot(0.5),
               shot(0.25), shot(4.0), 700, game)  # fmt: skip


def theirs(number: int, step_s: float, env: str = "Mastermind", ms: float | None = 0.5) -> Row:
    game = "mastermind" if env == "Mastermind" else None
    snapshot = None if ms is None else shot(ms)
    return Row("gem_llm", env, "peer", number, 100, step_s, 7, snapshot, game=game)


ROWS = [
    ours(0, 0.1, 9.0),
    ours(1, 0.4, 11.0),
    ours(2, 0.2, 8.0),
    ours(0, 0.1, 1.0, "mastermind"),
    ours(1, 0.4, 3.0, "mastermind"),
    theirs(0, 0.05),
    theirs(1, 0.1),
    theirs(0, 1.0, "PythonTool", None),
]


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ("treegrpo/SearchQA-v0", "search_qa_v0"),
        ("treegrpo/SQL-v1", "sql_v1"),
        ("treegrpo/PythonMath-v0", "python_math_v0"),
        ("GSM8kMultiTurn", "gsm8k_multi_turn"),
        ("mine/odd  name!", "odd_name"),
    ],
)
def test_names_of_metrics(env: str, name: str) -> None:
    assert metric_name(env) == name


def test_a_spread_is_median_and_95th_percentile() -> None:
    assert Spread.of([float(n) for n in range(101)]) == Spread(50.0, 95.0, 101)
    assert Spread.of([]) is None


def test_metrics_are_medians_over_rounds() -> None:
    found = metrics(ROWS)
    assert found["steps_per_s_sql_v0"] == pytest.approx(500)  # of 1000, 250 and 500
    assert found["snapshot_p50_ms_sql_v0"] == 9.0
    assert found["snapshot_p95_ms_sql_v0"] == 18.0
    assert (found["restore_p50_ms_sql_v0"], found["fork_p50_ms_sql_v0"]) == (0.5, 0.25)
    assert (found["forked_step_p50_ms_sql_v0"], found["snapshot_bytes_sql_v0"]) == (4.0, 700.0)
    assert found["steps_per_s_gem_llm_mastermind"] == pytest.approx(1500)  # of 2000 and 1000
    assert found["deepcopy_p50_ms_gem_llm_mastermind"] == 0.5
    assert "deepcopy_p50_ms_gem_llm_python_tool" not in found
    assert found["steps_per_s_gem_llm"] == pytest.approx((1500 + 100) / 2)
    assert all(isinstance(value, float) for value in found.values())


def test_ratios_pair_the_rounds() -> None:
    # Steps: 1000 / 2000 and 250 / 1000; snapshots: 1 / 0.5 and 3 / 0.5.
    assert ratios(ROWS) == {
        "step_ratio_mastermind_gem_llm": pytest.approx(0.375),
        "snapshot_ratio_mastermind_gem_llm": pytest.approx(4.0),
    }


@pytest.mark.parametrize(
    ("kind", "ms", "reached"),
    [
        ("pure Python", 0.99, True),
        ("pure Python", 1.0, False),
        ("SQLite", 9.9, True),
        ("SQLite", 10.0, False),
        ("sandbox", 500.0, None),
    ],
)
def test_targets_depend_on_where_the_state_is_kept(
    kind: Any, ms: float, reached: bool | None
) -> None:
    row = replace(ours(0, 0.1, ms), kind=kind)
    assert lines([row])[0].is_reached is reached


# ---------------------------------------------------------------------------------- the games


@pytest.fixture(scope="module")
def played() -> dict[str, Game]:
    return games()


@pytest.mark.parametrize("name", ["mastermind", "sokoban"])
def test_our_side_wins_by_the_texts_of_the_peers(played: dict[str, Game], name: str) -> None:
    case = played[name].subject.cases[0]
    env = case.at(0)
    ends = [env.step(action)[1:3] for action in case.actions]
    assert ends[-1] == (1.0, True)
    assert all(end == (0.0, False) for end in ends[:-1])
    assert list(case.actions) == played[name].given["actions"]
    assert all("[" in text and "\\boxed{" in text for text in case.actions)


def test_the_code_has_no_digit_twice_and_is_the_last_guess(played: dict[str, Game]) -> None:
    given = played["mastermind"].given
    assert given["guesses"][-1] == given["secret"] and len(set(given["secret"])) == 4
    assert len({tuple(guess) for guess in given["guesses"]}) == 7
    assert all(1 <= digit <= 6 for guess in given["guesses"] for digit in guess)
    assert given["actions"][-1].splitlines()[1] == f"[{' '.join(map(str, given['secret']))}]"


def test_the_room_given_to_peers_is_the_drawn_one(played: dict[str, Game]) -> None:
    given = played["sokoban"].given
    state = [cell for row in given["state"] for cell in row]
    fixed = [cell for row in given["fixed"] for cell in row]
    assert state.count(5) == 1 and state.count(3) + state.count(4) == given["boxes"]
    assert set(fixed) <= {0, 1, 2} and fixed.count(2) == given["boxes"]
    assert [cell == 0 for cell in fixed] == [cell == 0 for cell in state]


def test_counts_are_read_in_everybodys_words(played: dict[str, Game]) -> None:
    plain = played["mastermind"].plain
    ours_says = "A B C D: 1 placed, 2 misplaced\nGuesses left: 7"
    gem_says = "This guess receives 1 black peg(s) and 2 white peg(s)."
    arena_says = (
        "[GAME] Feedback: 4 black peg(s), 0 white peg(s).\n"
        "[GAME] Feedback: 1 black peg(s), 2 white peg(s)."
    )
    assert {plain(text) for text in (ours_says, gem_says, arena_says)} == {"[1, 2]"}
    assert plain("Congratulations!") == ""


def test_boards_are_read_in_everybodys_signs(played: dict[str, Game]) -> None:
    plain = played["sokoban"].plain
    ours_says = "# # # # #\n# + $ * #\n# # # # #\nMoves left: 3"
    peer_says = "old:\n# # # # #\n# P _ _ #\n\nnow:\n# # # # #\n# P X \u221a #\n# # # # #\nEnter"
    assert plain(ours_says) == plain(peer_says) == "#####\n#@$*#\n#####"
    assert plain("no board") == ""


def test_games_that_part_are_not_called_the_same() -> None:
    assert difference(["a", "b", ""], ["a", "b", "won"]) is None
    assert difference(["a", "b", ""], ["a", "c", ""]) == "step 2: 'b' here, 'c' there"
    assert difference(["a", ""], ["a"]) == "2 steps here, 1 there"
    assert difference(["", "x"], ["", "x"]) == "step 1: '' here, '' there"


# ------------------------------------------------------------------------------- the peer's side


class Counter:
    """Counts to 5; what it says may come from a shared source of chance, or be a fixed text."""

    def __init__(self, *, is_random: bool) -> None:
        random.seed(0)
        self.count, self.is_random = 0, is_random

    def step(self, action: str) -> Moment:
        self.count += 1
        draw = random.random() if self.is_random else 0.0
        return f"{action} {draw}", 0.0, self.count == 5


class Locked(Counter):
    def __init__(self) -> None:
        super().__init__(is_random=False)
        self.lock = threading.Lock()


class Sharing(Counter):
    def __deepcopy__(self, memo: dict[int, Any]) -> Sharing:
        return self


def entry(make_one: Any) -> Entry:
    return Entry(make_one, lambda env, action: env.step(action), [f"a{n}" for n in range(8)])


def test_a_copy_that_goes_on_as_the_original_is_right() -> None:
    found = judge(entry(lambda: Counter(is_random=False)))
    assert (found["verdict"], found["own"], len(found["moments"])) == ("right", "none", 5)


def test_chance_shared_by_copy_and_original_is_wrong() -> None:
    verdict = judge(entry(lambda: Counter(is_random=True)))["verdict"]
    assert verdict == "wrong: the original of step 0 goes on otherwise 1 steps later"


def test_a_copy_that_is_the_original_is_wrong() -> None:
    # The copy's first step is the original's too, so that the end comes too soon for both.
    verdict = judge(entry(lambda: Sharing(is_random=False)))["verdict"]
    assert verdict.startswith("wrong: ")


def test_what_cannot_be_copied_says_so() -> None:
    assert judge(entry(Locked))["verdict"] == "none: TypeError: cannot pickle '_thread.lock' object"
    assert measure_entry(entry(Locked), 0.0)["copy_ms"] == []


def test_what_an_environment_raises_is_an_answer() -> None:
    def broken() -> Any:
        raise OSError("no room")

    entries = {"Broken": entry(broken), "Right": entry(lambda: Counter(is_random=False))}
    for request in ({"judge": "Broken"}, {"measure": "Broken", "seconds": 0.0}):
        assert answer(entries, request) == {"failed": "OSError: no room"}
    assert answer(entries, {"judge": "Right"})["verdict"] == "right"


def test_a_failed_measurement_is_named_and_the_next_goes_on() -> None:
    gave = [{"failed": "OSError: no room"}, {"steps": 5, "step_s": 0.5, "passes": 9, "copy_ms": []}]
    peer: Any = SimpleNamespace(name="gem_llm", entries=["A", "B"], ask=lambda _: gave.pop(0))
    report = Report()
    env_overhead._measure_peer(peer, 0, 0.0, report)
    assert report.missing == {"gem_llm/A, round 0": "OSError: no room"}
    assert [(row.env, row.steps_per_s) for row in report.rows] == [("B", 10.0)]


def test_an_own_snapshot_that_is_not_written_is_none() -> None:
    class Offers(Counter):
        def spawn(self, *, same_state: bool) -> None:
            raise NotImplementedError

    class Keeps(Offers):
        def get_state(self) -> dict[str, int]:
            return {}

    assert judge(entry(lambda: Offers(is_random=False)))["own"] == "none"
    assert judge(entry(lambda: Keeps(is_random=False)))["own"] == "get_state"


def test_measuring_plays_whole_episodes() -> None:
    found = measure_entry(entry(lambda: Counter(is_random=False)), 0.0)
    assert (found["steps"], found["passes"], len(found["copy_ms"])) == (5, 1, 5)
    assert found["step_s"] > 0


def test_a_slow_pass_does_not_count() -> None:
    pauses = iter([0.0, 0.02, 0.0] + [0.0] * 99)

    class Slow(Counter):
        def __init__(self) -> None:
            super().__init__(is_random=False)
            self.pause = next(pauses, 0.0)

        def step(self, action: str) -> Moment:
            until = time.perf_counter() + self.pause
            while time.perf_counter() < until:
                continue
            return super().step(action)

    found = measure_entry(entry(Slow), 0.4)
    assert found["passes"] > 3 and found["step_s"] < 0.02


# ------------------------------------------------------------------------------------ the peers


def test_every_peer_has_pinned_requirements() -> None:
    assert set(peers.REQUIREMENTS) == set(PEERS)
    assert all("==" in one for many in peers.REQUIREMENTS.values() for one in many)


def test_a_peer_without_a_venv_is_named(tmp_path: Path) -> None:
    with pytest.raises(peers.PeerFailed, match="--install-peers makes it"):
        peers.Peer("textarena", {}, tmp_path)


def test_what_pip_refused_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str], **_: Any) -> Any:
        (tmp_path / "gem_llm").mkdir(exist_ok=True)
        refused = "Collecting it\nERROR: No matching distribution found for gem-llm==0.1.0\n"
        return SimpleNamespace(returncode=int("pip" in words), stderr=refused)

    monkeypatch.setattr(peers.subprocess, "run", run)
    peers.install("gem_llm", tmp_path)
    expected = "pip refused: ERROR: No matching distribution found for gem-llm==0.1.0"
    assert peers.state_of("gem_llm", tmp_path) == expected


def test_a_peer_that_dies_is_told_from_one_that_answers(tmp_path: Path) -> None:
    folder = tmp_path / "skyrl_gym" / "bin"
    folder.mkdir(parents=True)
    # This interpreter has no skyrl-gym: the process ends before its first answer.
    (folder / "python").symlink_to(sys.executable)
    with pytest.raises(peers.PeerFailed, match="skyrl_gym ended with status 1"):
        peers.Peer("skyrl_gym", {}, tmp_path)


# -------------------------------------------------------------------------------------- the run


def test_the_state_is_known_by_its_handle() -> None:
    env = core_of(make("treegrpo/SQL-v0"))
    env.reset(seed=0)
    assert kind_of(env) == "SQLite"
    env.close()
    boxed: Any = SimpleNamespace(state=SimpleNamespace(sandbox=None))
    assert kind_of(boxed) == "sandbox"
    assert subject("treegrpo/Crafting-v0", 1).kind == "pure Python"


@pytest.fixture(scope="module")
def report() -> Report:
    console = Console(file=io.StringIO())
    return measure(SHORT, ["treegrpo/Crafting-v0", "treegrpo/No-v0"], [], console)


def test_each_round_has_each_environment_once(report: Report) -> None:
    kept = [(row.env, row.game, row.round) for row in report.rows]
    names = [("treegrpo/Crafting-v0", None), ("treegrpo/Mastermind-v0", "mastermind")]
    names.append(("treegrpo/Sokoban-v0", "sokoban"))
    assert kept == [(*name, number) for number in range(2) for name in names]
    assert "Unknown environment" in report.missing["treegrpo/No-v0"]
    for row in report.rows:
        assert row.steps > 0 and row.nbytes and row.snapshot and row.fork and row.forked_step
        assert (
            row.passes == 1 and row.snapshot.count > row.fork.count
        )  # the end of an episode is snapshot, too


def test_the_tables_name_what_is_reached_missed_and_absent() -> None:
    report = Report(ROWS, missing={"textarena": "no venv"})
    report.copies = {f"gem_llm/{env}": {"deepcopy": "wrong: it is", "own": "none"}
                     for env in ("Mastermind", "PythonTool")}  # fmt: skip
    report.rows = [*ROWS, replace(ours(0, 0.1, 10.5), env="treegrpo/Slow-v0")]
    printed = io.StringIO()
    show(report, Console(width=140, file=printed))
    text = printed.getvalue()
    slow = next(line for line in text.splitlines() if "Slow-v0" in line)
    assert "10.500" in slow and "< 10 MISSED" in slow
    assert "< 10 reached" in next(line for line in text.splitlines() if "SQL-v0" in line)
    assert "wrong: it is" in text and "textarena was not measured: no venv" in text
    assert "0.375" in next(line for line in text.splitlines() if "step_ratio" in line)
    assert [line.env for line in report.missed] == ["treegrpo/Slow-v0"]


def test_the_record_keeps_rows_copies_and_what_is_missed(tmp_path: Path) -> None:
    report = Report(ROWS, {"gem_llm": "0.1.0"}, missing={"textarena": "no venv"})
    report.copies = {"gem_llm/Mastermind": {"deepcopy": "right", "own": "none"}}
    write(report, tmp_path / "x.json", quick=True)
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["question"] == env_overhead.QUESTION and record["seeds"] == [0]
    assert record["peers"] == {"gem_llm": "0.1.0"} and record["missed"] == []
    assert record["copies"] == report.copies and record["not_measured"] == report.missing
    assert record["metrics"] == metrics(ROWS) and len(record["rows"]) == len(ROWS)
    assert record["rows"][0]["snapshot"] == {"p50": 9.0, "p95": 18.0, "count": 10}
    assert not (tmp_path / "x.png").exists()


def test_a_full_record_has_its_picture(tmp_path: Path) -> None:
    write(Report(ROWS), tmp_path / "x.json", quick=False)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_measured_runs_beside_no_torch() -> None:
    code = "import sys, benchmarks.env_overhead; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(SystemExit) as refused:
        env_overhead.main(["--peers", "nobody"])
    assert refused.value.code == 2
