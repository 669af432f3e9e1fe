"""treegrpo.runfolder: rows whole, other runs untouched, redone steps dropped."""

import errno
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from treegrpo.checkpoint import Position, save_checkpoint
from treegrpo.config import TrainConfig, digest
from treegrpo.runfolder import (
    MAX_BAD_BATCHES,
    RunFolder,
    RunFolderError,
    drop_unbegun,
    read_rows,
    recorded_settings,
    write_text,
)
from treegrpo.tree import Tree, read_trees

CONFIG = TrainConfig(model="m", env="e")


def tree(step: int) -> Tree:
    made = Tree("q", step=step)
    made.add(None, observation_ids=[1, 2])
    return made


def folder_of(path: Path, steps: int) -> RunFolder:
    folder = RunFolder(path, CONFIG, resume_at=None)
    for step in range(steps):
        folder.metrics(step, {"loss": step / 3})
        folder.timings(step, {"total": 1.0})
        folder.failures(step, {("grader", "it broke"): 2})
        folder.trees([tree(step)])
    return folder


def test_the_files_of_a_run(tmp_path: Path) -> None:
    folder_of(tmp_path / "a" / "run", 2).sync()
    run = tmp_path / "a" / "run"
    record = json.loads((run / "config.json").read_text())
    assert TrainConfig.model_validate(record["config"]) == CONFIG
    assert record["digest"] == digest(CONFIG)
    assert read_rows(run / "metrics.jsonl") == [
        {"step": 0, "loss": 0.0},
        {"step": 1, "loss": 1 / 3},
    ]
    assert [row["step"] for row in read_rows(run / "timings.jsonl")] == [0, 1]
    assert read_rows(run / "failures.jsonl")[1] == {
        "step": 1, "who": "grader", "message": "it broke", "count": 2,
    }  # fmt: skip
    assert [one.step for one in read_trees(run / "trees.jsonl")] == [0, 1]


@pytest.mark.parametrize("torn", ["", '{"step": 3, "lo', '{"step": 3, "loss": 1.0}', "\x00\x00"])
def test_a_resume_drops_what_will_be_done_again_and_a_torn_line(tmp_path: Path, torn: str) -> None:
    folder_of(tmp_path, 3)
    before = (tmp_path / "metrics.jsonl").read_text()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")][:3] == [0, 1, 2]
    folder = RunFolder(tmp_path, CONFIG, resume_at=2)
    for name in ("metrics", "timings", "trees", "failures"):
        assert [row["step"] for row in read_rows(tmp_path / f"{name}.jsonl")] == [0, 1]
    folder.metrics(2, {"loss": 2 / 3})
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_new_run_refuses_the_folder_of_another(tmp_path: Path) -> None:
    folder_of(tmp_path / "rows", 1)
    save_checkpoint(tmp_path / "point" / "checkpoint", Position(next_step=1), {})
    (tmp_path / "other" / "model").mkdir(parents=True)
    (tmp_path / "other" / "model" / "notes.txt").write_text("mine")
    for name in ("rows", "point", "other"):
        with pytest.raises(RunFolderError, match="would be overwritten"):
            RunFolder(tmp_path / name, CONFIG, resume_at=None)
    assert (tmp_path / "other" / "model" / "notes.txt").read_text() == "mine"
    assert len(read_rows(tmp_path / "rows" / "metrics.jsonl")) == 1
    folder_of(tmp_path / "killed before its first step", 0)
    folder_of(tmp_path / "killed before its first step", 1)


def test_what_to_do_about_a_run_that_is_there_depends_on_its_checkpoint(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    with pytest.raises(RunFolderError, match=r"no checkpoint: begin it again .*\(--resume, with"):
        RunFolder(tmp_path, CONFIG, resume_at=None)
    save_checkpoint(tmp_path / "checkpoint", Position(next_step=1), {})
    with pytest.raises(RunFolderError, match=r"there\. Resume that run \(--resume\), or"):
        RunFolder(tmp_path, CONFIG, resume_at=None)


def test_a_run_that_did_no_step_leaves_nothing(tmp_path: Path) -> None:
    folder_of(tmp_path / "new" / "run", 0)
    assert drop_unbegun(tmp_path / "new" / "run")
    assert not list((tmp_path / "new").iterdir())
    folder_of(tmp_path / "kept", 0).bad_batch(0, {"loss": 1.0})
    assert drop_unbegun(tmp_path / "kept") and (tmp_path / "kept" / "config.json").exists()
    folder_of(tmp_path / "shared", 0)
    (tmp_path / "shared" / "notes.txt").touch()
    assert drop_unbegun(tmp_path / "shared")
    assert [p.name for p in (tmp_path / "shared").iterdir()] == ["notes.txt"]
    folder_of(tmp_path / "begun", 1)
    assert not drop_unbegun(tmp_path / "begun")
    assert read_rows(tmp_path / "begun" / "metrics.jsonl")


@pytest.mark.parametrize(
    ("code", "to_do"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "Get the right to write there"),
        (errno.ENOTDIR, "Move what stands in the way"),
        (errno.ENOENT, "Make the folder above it"),
        (errno.ENAMETOOLONG, "Check the path"),
    ],
)
def test_the_advice_fits_the_systems_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, to_do: str
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(RunFolderError, match=rf"\. {to_do}, or choose another folder with out=DIR"):
        write_text(tmp_path / "a", "b")


def test_the_run_in_a_folder(tmp_path: Path) -> None:
    assert recorded_settings(tmp_path) is None
    folder_of(tmp_path, 0)
    assert recorded_settings(tmp_path) == CONFIG.model_dump(mode="json")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(RunFolderError, match=r"config\.json' cannot be read"):
        recorded_settings(tmp_path)
    with pytest.raises(RunFolderError, match=r"config\.json' cannot be read"):
        RunFolder(tmp_path, CONFIG, resume_at=None)


def test_metrics_go_to_tensorboard_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[object, ...]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            told.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

    module = types.ModuleType("torch.utils.tensorboard")
    monkeypatch.setattr(module, "SummaryWriter", Writer, raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr("treegrpo.runfolder.find_spec", lambda name: name == "tensorboard")
    RunFolder(tmp_path, CONFIG, resume_at=4).metrics(4, {"loss": 0.5, "end_reasons": {"a": 1}})
    assert told == [(str(tmp_path / "tensorboard"), 4), ("loss", 0.5, 4)]


def test_a_full_disk_leaves_whole_rows(tmp_path: Path) -> None:
    """Writes to a file whose size is limited: the kernel takes a part and then refuses."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from treegrpo.config import TrainConfig\n"
        "from treegrpo.runfolder import RunFolder, RunFolderError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "folder = RunFolder(Path(sys.argv[1]), TrainConfig(model='m', env='e'), resume_at=None)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    for step in range(100):\n"
        "        folder.metrics(step, {'loss': 0.5})\n"
        "except RunFolderError as error:\n"
        "    sys.exit(str(error))\n"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1 and "Writing '" in done.stderr and "Free some" in done.stderr
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.endswith("}\n") and 900 < len(text) <= 1000


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_whole_file_is_replaced_or_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "summary.json"
    write_text(target, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_model_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 0)

    def save(path: Path) -> None:
        path.mkdir()
        (path / "weights").write_text("new")

    def fail(path: Path) -> None:
        save(path)
        full()

    folder.model(save)
    with pytest.raises(RunFolderError, match=r"model' failed: No space left"):
        folder.model(fail)
    assert (tmp_path / "model" / "weights").read_text() == "new"
    assert not (tmp_path / ".model.part").exists()
    folder.model(save)
    assert (tmp_path / "model" / "weights").read_text() == "new"


def test_only_the_first_bad_batches_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 0)
    kept = [folder.bad_batch(step, {"loss": float(step)}) for step in range(MAX_BAD_BATCHES)]
    files = sorted((tmp_path / "bad_batches").iterdir())
    assert kept == [f"in '{path}'" for path in files] and len(files) == MAX_BAD_BATCHES
    assert torch.load(files[-1], weights_only=True) == {"loss": MAX_BAD_BATCHES - 1.0}
    others = [folder.bad_batch(99, {"loss": 0.0}) for _ in range(2)]
    where = f"not kept: '{tmp_path / 'bad_batches'}' has {MAX_BAD_BATCHES}, and "
    assert others == [f"{where}{count} more were left out" for count in (1, 2)]
    assert sorted((tmp_path / "bad_batches").iterdir()) == files
