"""Everything a user can get wrong ends with one message, exit code 2, and nothing left behind.

Each message says what was asked, what was found, what to do: the three words of each case.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from treegrpo.cli import main
from treegrpo.credit import credit_names, drop_credit
from treegrpo.tiny import build_model, build_tokenizer, save_model

ENV = "treegrpo/SearchQA-v0"
SMALL = (
    "steps=1", "questions=1", "trunks=2", "forks=0", "rounds=0", "credit=group",
    "max_action_tokens=8", "max_context_tokens=512",
)  # fmt: skip
TRAIN = ("train", "--model", "model", "--env", ENV, *SMALL)
EVAL = ("eval", "--agent", "oracle", "--env", ENV, "--tasks", "2", "--out", "bundle")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a command can be given, good and bad."""
    home = tmp_path_factory.mktemp("bad input")
    tokenizer = build_tokenizer(["Where is it ? one two three . search answer"])
    model = build_model(len(tokenizer), layers=1, width=32)
    save_model(model, tokenizer, home / "model")
    _write_bad_models(home)
    _write_files(home)
    with contextlib.chdir(home):
        for words in ([*TRAIN, "out=run"], [*EVAL[:-1], "good_bundle"]):
            assert _main(words) == 0
    shutil.copytree(home / "run", home / "spoilt_training")
    _flip(next((home / "spoilt_training" / "checkpoint").glob("*/*.pt")))
    for name in ("run.json", "episodes.jsonl", "trajectories/*"):
        folder = home / f"spoilt_{name.split('.')[0].strip('/*')}"
        shutil.copytree(home / "good_bundle", folder)
        _flip(min(folder.glob(name)))
    return home


def _write_bad_models(home: Path) -> None:
    def variant(name: str, **changes: object) -> Path:
        folder = shutil.copytree(home / "model", home / name)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return folder

    weights = variant("cut_model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    (variant("no_template") / "chat_template.jinja").unlink()
    template = variant("forgetful") / "chat_template.jinja"
    template.write_text(
        "{% for m in messages[-1:] %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (home / "no_model").mkdir()


def _write_files(home: Path) -> None:
    (home / "file").write_text("x")
    (home / "empty.jsonl").write_text("")
    good = {"id": "a", "question": "q?", "golden_answers": ["x"]}
    lines = [json.dumps(good), '{"id": "b", "question": "q?"']
    (home / "broken.jsonl").write_text("\n".join(lines))
    wrong = {"_id": "1", "question": "q?", "answer": 7, "context": [], "supporting_facts": []}
    (home / "wrong_field.json").write_text(json.dumps([wrong]))
    (home / "wrong_key.toml").write_text('model = "model"\nlerning_rate = 3e-4\n')
    (home / "broken.toml").write_text("model = \n")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _main(words: Sequence[object]) -> int:
    before = sys.argv
    sys.argv = ["treegrpo", *map(str, words)]
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
        gc.collect()  # a refused trainer's environments close here, not in another test
    return 0


@pytest.fixture
def run(template: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(template)
    capsys.readouterr()

    def call(*words: object) -> Ended:
        code = _main(words)
        shown = capsys.readouterr()
        return Ended(code, shown.out, shown.err)

    return call


def _snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def _require_one_message(ended: Ended, words: Sequence[str]) -> None:
    everything = ended.out + ended.err
    assert ended.code == 2, everything
    assert "Traceback" not in everything
    assert ended.err.startswith("Error: "), everything
    assert len(re.findall(r"(?<!\w)Error: ", everything)) == 1, everything
    assert ended.out.strip() == ""
    for part in words:
        assert part in ended.err, f"{part!r} is not in: {ended.err}"


# What was typed -> words of what was asked, what was found, what to do.
CASES: dict[str, tuple[Sequence[str], tuple[str, str, str]]] = {
    "no such command": (["frob"], ("'treegrpo'", "No such command 'frob'", "See treegrpo --help")),
    "no such option": (
        ["train", "--modle", "x"], ("'treegrpo train'", "--modle", "See treegrpo train --help"),
    ),
    "option without value": (
        ["demo", "--seed"], ("'treegrpo'", "'--seed' requires an argument", "--help"),
    ),
    "negative seed": (["demo", "--seed", "-1"], ("--seed", "greater than or equal to 0", "See")),
    "seed that is no number": (["demo", "--seed", "x"], ("--seed", "integer", "See treegrpo")),
    "missing option": (["eval", "--agent", "null"], ("eval", "Missing option '--env'", "See")),
    "unknown algorithm": (
        ["demo", "--algo", "gruop"], ("'gruop' asked for", "tree, group", "Did you mean 'group'"),
    ),
    "demo over other files": (
        ["demo", "--out", "model"], ("'model' was asked for", "something else", "--out DIR"),
    ),
    "demo below a file": (
        ["demo", "--out", "file/demo"], ("'file/demo' was asked", "Not a directory", "--out DIR"),
    ),
    "demo where nobody writes": (
        ["demo", "--out", "/proc/treegrpo"], ("/proc/treegrpo", "cannot be made", "--out DIR"),
    ),
    "check of an unknown environment": (
        ["check", "treegrpo/Serch-v0"], ("Serch-v0", "Unknown", "treegrpo envs"),
    ),
    # train: names
    "train without anything": (["train"], ("model", "not given", "Folder or hub id")),
    "train on an unknown environment": (
        [*TRAIN[:3], "--env", "treegrpo/SerchQA-v0"],
        ("SerchQA-v0", "Did you mean 'treegrpo/SearchQA-v0'", "treegrpo envs"),
    ),
    "unknown key": ([*TRAIN, "lerning_rate=1"], ("'lerning_rate'", "Unknown", "lr")),
    "unknown part of a key": ([*TRAIN, "lr.x=1"], ("'lr.x=1'", "has no parts", "Write lr=")),
    "word without value": ([*TRAIN, "fast"], ("'fast'", "not of the form", "lr=3e-4")),
    "key given twice": ([*TRAIN, "lr=1e-3", "lr=2e-3"], ("'lr'", "given twice", "Keep one")),
    "option and key": ([*TRAIN, "model=x"], ("'model'", "given twice", "Keep one")),
    "text for a number": ([*TRAIN, "lr=fast"], ("lr", "got 'fast'", "allowed: a finite number")),
    "number out of range": ([*TRAIN, "seed=-1"], ("seed", "got -1", "allowed: an integer >= 0")),
    "fraction for a count": (
        ["train", "--model", "model", "--env", ENV, "steps=1.5"], ("steps", "got 1.5", "integer"),
    ),
    "settings that exclude": (
        [*TRAIN[:5], "forks=0"], ("rounds", "no effect with forks=0", "set both to 0"),
    ),
    "unknown credit": (
        ["train", "--model", "model", "--env", ENV, "credit=grup"], ("grup", "group", "'group'"),
    ),
    "unknown loss": ([*TRAIN, "loss=grppo"], ("grppo", "Did you mean 'grpo'", "grpo")),
    "unknown normaliser": ([*TRAIN, "normaliser=tokens"], ("tokens", "token_mean", "token_mean")),
    "unknown split": ([*TRAIN, "split=tset"], ("tset", "train, test", "Did you mean 'test'")),
    "difficulty there is not": (
        [*TRAIN, "difficulty=9"], ("9 asked for", "the split has", "1, 2, 3"),
    ),
    "attention that does not train here": (
        [*TRAIN, "attention=flex", "device=cpu"],
        ("attention=flex asked for", "on CUDA devices only. Use", "attention=auto"),
    ),
    "no such gpu": ([*TRAIN, "device=cuda:77"], ("cuda:77", "torch sees", "device=cpu")),
    "toml with a wrong key": (
        ["train", "--config", "wrong_key.toml", "--env", ENV],
        ("'lerning_rate'", "Unknown option", "lr"),
    ),
    "toml that does not parse": (
        ["train", "--config", "broken.toml"], ("broken.toml", "not valid TOML", "Correct it"),
    ),
    "toml that is not there": (
        ["train", "--config", "none.toml"], ("none.toml", "does not exist", "Check the path"),
    ),
    # train: models
    "model that is not there": (
        ["train", "--model", "./none", "--env", ENV],
        ("'./none' asked for", "no such folder", "Give a Hugging Face model folder"),
    ),
    "folder without a model": (
        ["train", "--model", "./no_model", "--env", ENV],
        ("'./no_model' asked for", "no config.json", "Give a Hugging Face model folder"),
    ),
    "model with cut weights": (
        ["train", "--model", "cut_model", "--env", ENV],
        ("'cut_model' asked for", "cannot be loaded", "Give a causal language model"),
    ),
    "hub id without network": (
        ["train", "--model", "nobody/none", "--env", ENV],
        ("'nobody/none' asked for", "cannot be reached", "Check the spelling or the network"),
    ),
    "tokenizer without a chat template": (
        ["train", "--model", "no_template", "--env", ENV],
        ("chat format was asked for", "no chat template", "instruction-tuned model"),
    ),
    "template that forgets": (
        ["train", "--model", "forgetful", "--env", ENV],
        ("to continue a conversation", "changes what stood before", "only appends"),
    ),
    # train: environment and data
    "option the environment has not": (
        [*TRAIN, "env_kwargs.top_q=1"], ("'top_q'", "it takes", "Did you mean 'top_k'"),
    ),
    "option of a wrong type": (
        [*TRAIN, "env_kwargs.data=3"], ("'data': 3", "cannot be made", "a value that it can use"),
    ),
    "empty dataset": ([*TRAIN, "env_kwargs.data=empty.jsonl"], ("empty.jsonl", "empty", "Give")),
    "missing dataset": ([*TRAIN, "env_kwargs.data=no.jsonl"], ("no.jsonl", "no such", "path")),
    "malformed dataset": (
        [*TRAIN, "env_kwargs.data=broken.jsonl", "env_kwargs.corpus=broken.jsonl"],
        ("broken.jsonl", "line 2", "JSON"),
    ),
    "dataset with a wrong field": (
        [*TRAIN, "env_kwargs.data=wrong_field.json"], ("wrong_field.json", "answer", "text"),
    ),
    # train: folders
    "out is a file": ([*TRAIN, "out=file"], ("'file", "File exists", "Move what stands in")),
    "out below a file": (
        [*TRAIN, "out=file/run"], ("file/run", "Not a directory", "Move what stands in the way"),
    ),
    "out where nobody writes": (
        [*TRAIN, "out=/proc/x"], ("/proc/x", "failed", "Make the folder above it, or choose"),
    ),
    "out holds another run": (
        [*TRAIN, "out=run"],
        ("'run' was asked", "would be overwritten", "Resume"),
    ),
    "resume of nothing": (
        [*TRAIN, "out=fresh", "--resume"], ("'fresh", "no checkpoint", "without resume"),
    ),
    "resume with other settings": (
        [*TRAIN, "out=run", "--resume", "lr=1e-3"], ("'run'", "lr was", "another out folder"),
    ),
    "resume from a spoilt checkpoint": (
        [*TRAIN, "out=spoilt_training", "--resume"],
        ("spoilt_training", "cannot be read", "Put back"),
    ),
    # eval and leaderboard
    "unknown agent": (
        ["eval", "--agent", "orcle", *EVAL[3:]], ("'orcle' asked", "Did you mean", "Give one"),
    ),
    "agent with cut weights": (
        ["eval", "--agent", "cut_model", *EVAL[3:]],
        ("'cut_model' asked for", "cannot be loaded", "Give a causal"),
    ),
    "evaluation of an unknown environment": (
        [*EVAL[:3], "--env", "treegrpo/SQL-v9", "--out", "b"],
        ("SQL-v9", "Unknown environment", "treegrpo envs"),
    ),
    "evaluation of an unknown split": (
        [*EVAL, "--split", "tset"], ("tset", "train, test", "Did you mean 'test'"),
    ),
    "evaluation of too many tasks": (
        [*EVAL, "--first-index", "5000000"], ("5000000 asked for", "the split has", "0 to 999"),
    ),
    "evaluation of no task": ([*EVAL, "--tasks", "0"], ("--tasks", "greater than", "See")),
    "evaluation over a bundle": (
        [*EVAL[:-1], "good_bundle"], ("'good_bundle' asked for", "exists already", "another path"),
    ),
    "evaluation below a file": (
        [*EVAL[:-1], "file/b"], ("'file/b' asked for", "cannot be written", "give a path"),
    ),
    "environment argument without value": (
        [*EVAL, "--env-arg", "data"], ("'data' asked for", "no key=value", "Write --env-arg"),
    ),
    "environment argument there is not": (
        [*EVAL, "--env-arg", "dta=x"], ("'dta'", "it takes", "Did you mean 'data'"),
    ),
    "evaluation on an empty dataset": (
        [*EVAL, "--env-arg", "data=empty.jsonl"], ("empty.jsonl", "empty", "Give"),
    ),
    "evaluation on a malformed dataset": (
        [*EVAL, "--env-arg", "data=broken.jsonl", "--env-arg", "corpus=broken.jsonl"],
        ("broken.jsonl", "line 2", "JSON"),
    ),
    "verifying nothing": (
        ["leaderboard", "verify", "none"], ("'none' asked for", "found nothing", "Give the folder"),
    ),
    "verifying a spoilt manifest": (
        ["leaderboard", "verify", "spoilt_run"], ("run.json", "", "again"),
    ),
    "verifying spoilt episodes": (
        ["leaderboard", "verify", "spoilt_episodes"], ("episodes.jsonl", "", "again"),
    ),
    "adding spoilt trajectories": (
        ["leaderboard", "add", "spoilt_trajectories"], ("trajectories/", "was altered", "again"),
    ),
    "table of nothing": (
        ["leaderboard", "table", "--store", "sqlite:///none.sqlite"],
        ("none.sqlite", "no file", "Add a bundle first"),
    ),
    "table of no url": (
        ["leaderboard", "table", "--store", "a board"], ("'a board'", "no database URL", "Write"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_message_and_nothing_left_behind(case: str, run: Run, template: Path) -> None:
    words, parts = CASES[case]
    before = _snapshot(template)
    ended = run(*words)
    _require_one_message(ended, parts)
    assert _snapshot(template) == before


OWN = """
from treegrpo.credit import credit

def every_step(number):
    return lambda question: [
        {leaf: [number] * tree.nodes[leaf].depth for leaf in tree.leaves()} for tree in question
    ]

@credit("raises")
def raises(question):
    return 1 / 0

credit("ones")(every_step(1.0))
credit("huge")(every_step(1e39))
"""


@pytest.fixture
def own_credits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """A user's module `own_credits` on the path, forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_credits.py").write_text(OWN)
    yield
    for name in {"raises", "ones", "huge"} & set(credit_names()):
        drop_credit(name)
    sys.modules.pop("own_credits", None)


@pytest.mark.usefixtures("own_credits")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", ("'raises' raised ZeroDivisionError", "at own_credits.py:11", "Correct it. No")),
        ("huge", ("'huge' must give", "found 1e+39 at step 1 for leaf", "No step was done")),
    ],
)
def test_a_credit_that_fails_in_the_first_step_leaves_nothing(
    run: Run, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    ended = run(*[w for w in TRAIN if w != "credit=group"], f"credit=own_credits:{name}",
                f"out={tmp_path / 'run'}")  # fmt: skip
    _require_one_message(ended, words)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("own_credits")
def test_a_run_that_ruins_its_weights_writes_no_model(run: Run, tmp_path: Path) -> None:
    words = [w for w in TRAIN if w != "credit=group"]
    ended = run(*words, "credit=own_credits:ones", "lr=1000", f"out={tmp_path / 'run'}")
    _require_one_message(ended, ("rate of 1000", "norm of the weights went from", "a lower lr"))
    assert [p.name for p in (tmp_path / "run" / "bad_batches").iterdir()]
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_the_good_input_beside_all_this_is_taken(run: Run, template: Path) -> None:
    """The cases fail for what is wrong in them, not for what they share."""
    assert (template / "run" / "model" / "config.json").exists()
    assert run("leaderboard", "verify", "good_bundle").code == 0
    assert run(*TRAIN, "out=run", "--resume").code == 0


@contextlib.contextmanager
def _files_of_at_most(size: int) -> Generator[None]:
    """Let every write past `size` bytes of a file fail, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _half_written(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if "part" in p.name or ".tmp" in p.name]


def test_training_without_room_for_a_checkpoint(run: Run, tmp_path: Path) -> None:
    with _files_of_at_most(20_000):
        ended = run(*TRAIN, f"out={tmp_path / 'run'}")
    progress = [line for line in ended.out.splitlines() if line.strip()]
    _require_one_message(
        Ended(ended.code, "", ended.err), ("checkpoint", "failed", "Free some space")
    )
    assert progress == []
    assert _half_written(tmp_path) == []
    assert not (tmp_path / "run" / "model").exists()
    assert run(*TRAIN, f"out={tmp_path / 'run'}", "--resume").code == 0


def test_an_evaluation_without_room(run: Run, tmp_path: Path) -> None:
    with _files_of_at_most(1000):
        ended = run(*EVAL[:-1], tmp_path / "bundle")
    _require_one_message(ended, ("bundle' asked for", "cannot be written", "space"))
    assert {path.name for path in tmp_path.iterdir()} <= {".bundle.part"}  # what is finished
    assert run(*EVAL[:-1], tmp_path / "bundle").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_demo_without_room(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from treegrpo.cli import demo

    mini = demo.DemoSettings(layers=1, demonstrations=32, steps=1, eval_tasks=2, lr=1e-3)
    monkeypatch.setattr(demo, "FAST", mini)
    with _files_of_at_most(20_000):
        ended = run("demo", "--fast", "--threads", 1, "--out", tmp_path / "demo")
    _require_one_message(Ended(ended.code, "", ended.err), ("warmstart", "too large", "Free some"))
    assert {p.name for p in (tmp_path / "demo").iterdir()} <= {"demo.json", "stages.json"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A disk of 64 kB that is really full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(run: Run, small_disk: Path) -> None:
    ended = run(*TRAIN, f"out={small_disk / 'run'}")
    _require_one_message(Ended(ended.code, "", ended.err), ("run", "failed", "Free some space"))
    assert _half_written(small_disk) == []
    shutil.rmtree(small_disk / "run")
    ended = run("eval", "--agent", "oracle", "--env", ENV, "--out", small_disk / "bundle")
    _require_one_message(ended, ("bundle' asked for", "No space left on device", "space"))
    assert {path.name for path in small_disk.iterdir()} <= {".bundle.part"}  # what is finished


@pytest.mark.parametrize(
    "case", ["unknown key", "hub id without network", "verifying spoilt episodes"]
)
def test_as_a_process_of_its_own(case: str, template: Path) -> None:
    words, parts = CASES[case]
    before = _snapshot(template)
    code = "from treegrpo.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=template, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    _require_one_message(Ended(done.returncode, done.stdout, done.stderr), parts)
    assert _snapshot(template) == before
