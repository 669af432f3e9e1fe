"""The probe says what really holds; what is missing comes with its cause and a remedy."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from treegrpo.sandboxes.base import Feature, Level
from treegrpo.sandboxes.guest import landlock
from treegrpo.sandboxes.process import cgroups, probe
from treegrpo.sandboxes.process.probe import HostSettings, explain_namespaces, level_of
from treegrpo.sandboxes.seccomp import compile_filter

ROOT = Path(__file__).resolve().parents[2]
NAMES = (*("namespaces", "overlay", "seccomp", "notification", "landlock", "cgroups", "numpy"),)
NONE = HostSettings(None, None, 10_000, filtered=False, root=False)
PROBE = """
from treegrpo.sandboxes.process.probe import probe
found = probe()
print(json.dumps([int(found.level), {f.name: [f.present, f.reason, f.remedy]
                                     for f in found.features}]))
"""


def probe_after(code: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the level and the features that a process finds which first runs `code`."""
    done = subprocess.run(
        [sys.executable, "-c", "import json, os, sys\n" + code + PROBE, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    level, features = json.loads(done.stdout)
    return level, features


def test_every_feature_is_there_or_says_why_not_and_what_to_do() -> None:
    found = probe.probe()
    assert found.backend == "process"
    assert tuple(feature.name for feature in found.features) == NAMES
    assert found.level == level_of(found.features)
    for feature in found.features:
        assert feature.reason
        assert bool(feature.remedy) is not feature.present


def test_the_features_are_what_their_modules_say() -> None:
    present = {feature.name: feature.present for feature in probe.probe().features}
    assert present["landlock"] is (landlock.abi() > 0)
    assert present["cgroups"] is isinstance(cgroups.find(), cgroups.CgroupHome)
    assert present["seccomp"] and present["numpy"]


def test_it_is_quick() -> None:
    spent: list[float] = []
    waited: list[float] = []
    for _ in range(3):
        start, before = time.perf_counter(), os.times()
        probe.probe()
        waited.append(time.perf_counter() - start)
        spent.append(sum(os.times()[:4]) - sum(before[:4]))  # its child processes too
    assert min(spent) < 0.3
    assert min(waited) < 5  # on a busy machine; what waited for an answer would take longer


@pytest.mark.parametrize(
    ("missing", "level"),
    [
        ((), Level.L3),
        (("numpy",), Level.L3),
        (("cgroups",), Level.L2),
        (("overlay",), Level.L1),
        (("notification",), Level.L1),
        (("namespaces", "overlay", "cgroups"), Level.L1),
        (("landlock",), Level.L0),
        (("seccomp",), Level.L0),
        (("namespaces", "landlock"), Level.L0),
        (NAMES, Level.L0),
    ],
)
def test_the_level_is_that_of_the_weakest_part(missing: tuple[str, ...], level: Level) -> None:
    assert level_of(tuple(Feature(name, name not in missing) for name in NAMES)) == level


@pytest.mark.parametrize(
    ("failure", "settings", "reason", "remedy"),
    [
        (
            ("unshare", errno.EPERM, "no"),
            HostSettings(1, None, 100, filtered=False, root=False),
            "AppArmor refuses them",
            "'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'",
        ),
        (
            ("unshare", errno.EPERM, "no"),
            HostSettings(None, 0, 100, filtered=False, root=False),
            "kernel.unprivileged_userns_clone is 0",
            "'sudo sysctl -w kernel.unprivileged_userns_clone=1'",
        ),
        (
            ("unshare", errno.ENOSPC, "no"),
            HostSettings(0, 1, 0, filtered=False, root=False),
            "user.max_user_namespaces is 0",
            "'sudo sysctl -w user.max_user_namespaces=10000'",
        ),
        (
            ("unshare", errno.EPERM, "no"),
            HostSettings(1, None, 100, filtered=True, root=True),
            "a seccomp filter over this process refuses them",
            "seccomp profile that allows unshare",
        ),
        (("root", errno.EPERM, "no"), NONE, "root here may not mount", "an ordinary user"),
        (("unshare", errno.EINVAL, "no"), NONE, "the kernel has none", "CONFIG_USER_NS"),
        (("map", errno.EPERM, "denied"), NONE, "map failed: denied", "allow user namespaces"),
        (("trial", 0, "killed"), NONE, "the trial failed: killed", "report it"),
    ],
)
def test_the_cause_is_named(
    failure: tuple[str, int, str], settings: HostSettings, reason: str, remedy: str
) -> None:
    said, to_do = explain_namespaces(failure, settings)
    assert reason in said
    assert remedy in to_do


def test_the_settings_are_read_from_proc(tmp_path: Path) -> None:
    for name, text in (
        ("sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"),
        ("sys/user/max_user_namespaces", "0\n"),
        ("self/status", "Name:\tpython\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    expected = HostSettings(1, None, 0, filtered=True, root=os.geteuid() == 0)
    assert probe.read_settings(tmp_path) == expected
    assert probe.read_settings(tmp_path / "none").max_user_namespaces is None


def test_under_a_containers_filter_it_names_the_filter(tmp_path: Path) -> None:
    program = tmp_path / "filter"
    program.write_bytes(compile_filter(gate=False))
    code = """
from treegrpo.sandboxes.guest import kernel
with open(sys.argv[1], "rb") as file:
    kernel.install_filter(file.read(), listen=False)
"""
    level, features = probe_after(code, str(program))
    assert level <= 1
    present, reason, remedy = features["namespaces"]
    assert not present and "a seccomp filter over this process" in reason
    assert "outside" in remedy
    assert not features["overlay"][0] and not features["notification"][0]
    assert not Path("/tmp/beside").exists()  # where the trial would have worked outside


@pytest.mark.skipif(
    not any(f.name == "notification" and f.present for f in probe.probe().features),
    reason="needs seccomp notification",
)
def test_under_another_supervisor_it_names_the_listener() -> None:
    code = """
import struct
from treegrpo.sandboxes.guest import kernel
kernel.install_filter(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), listen=True)
"""
    level, features = probe_after(code)
    assert level <= 1
    assert not features["notification"][0] and "has a listener" in features["notification"][1]


@pytest.mark.skipif(
    not any(f.name == "namespaces" and f.present for f in probe.probe().features),
    reason="needs a user namespace in which they can be switched off",
)
def test_where_user_namespaces_are_switched_off_it_names_the_switch() -> None:
    code = """
from treegrpo.sandboxes.guest import kernel
uid, gid = os.getuid(), os.getgid()
kernel.unshare(kernel.CLONE_NEWUSER)
for name, text in (
    ("self/setgroups", "deny"),
    ("self/uid_map", f"1000 {uid} 1"),
    ("self/gid_map", f"1000 {gid} 1"),
    ("sys/user/max_user_namespaces", "0"),
):
    with open("/proc/" + name, "w") as file:
        file.write(text)
"""
    level, features = probe_after(code)
    assert level <= 1
    assert features["namespaces"][:2] == [False, "user.max_user_namespaces is 0"]
    assert features["overlay"][0] is False
    assert features["landlock"][0] is (landlock.abi() > 0)


def test_without_libseccomp_the_remedy_is_said() -> None:
    code = """
import ctypes.util
ctypes.util.find_library = lambda name: None if name == "seccomp" else "libc.so.6"
"""
    level, features = probe_after(code)
    assert level == 0
    assert features["seccomp"][:2] == [False, "libseccomp is not installed"]
    assert "apt install libseccomp2" in features["seccomp"][2]


def test_a_trial_that_cannot_start_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    found = probe.run_trial()
    assert set(found) == {"namespaces", "overlay", "notification"}
    for failure in found.values():
        assert failure and failure[0] == "trial"
        assert "/nowhere/python" in failure[2]


def test_elsewhere_than_linux_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    found = probe.probe()
    assert found.level == Level.L0
    assert [f.name for f in found.missing()] == ["linux"]
    assert "docker" in found.features[0].remedy
