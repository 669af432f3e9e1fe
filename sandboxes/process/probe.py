"""What the process backend can give on this host: every feature is tried, not looked up."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from treegrpo.sandboxes.base import Capabilities, Feature, Level
from treegrpo.sandboxes.errors import SandboxUnavailable
from treegrpo.sandboxes.guest import landlock
from treegrpo.sandboxes.process import cgroups
from treegrpo.sandboxes.seccomp import compile_filter

Failure = tuple[str, int, str]
"""A step of the trial, its errno and message."""

_TRIAL_S = 20.0
_PACKAGE = Path(__file__).resolve().parents[1]
# The trial is a program without the packages above it: they would load half of our imports.
_START = """
import sys, types
for name in ("", ".sandboxes", ".sandboxes.guest", ".sandboxes.process"):
    module = sys.modules["treegrpo" + name] = types.ModuleType("treegrpo" + name)
    module.__path__ = [sys.argv[1] + name.removeprefix(".sandboxes").replace(".", "/")]
from treegrpo.sandboxes.process import trial
trial.main()
"""


@dataclass(frozen=True)
class HostSettings:
    """The switches that can forbid user namespaces; None where the kernel has no such one."""

    apparmor_restricts: int | None
    unprivileged_clone: int | None
    max_user_namespaces: int | None
    filtered: bool  # this process already runs under a seccomp filter
    root: bool


def probe() -> Capabilities:
    """Return what the process backend can do here, with reason and remedy for the rest."""
    if platform.system() != "Linux":
        only = Feature(
            "linux", False, f"this is {platform.system()}", "use the backend 'docker', or Linux"
        )
        return Capabilities("process", Level.L0, (only,))
    trial = run_trial()
    features = (
        _namespaces(trial["namespaces"], read_settings()),
        _overlay(trial),
        _libseccomp(),
        _notification(trial["notification"]),
        _landlock(),
        _cgroups(),
        _numpy(),
    )
    return Capabilities("process", level_of(features), features)


def level_of(features: tuple[Feature, ...]) -> Level:
    """Return the level that these features add up to."""
    here = {feature.name for feature in features if feature.present}
    if not {"seccomp", "landlock"} <= here:
        return Level.L0
    if not {"namespaces", "overlay", "notification"} <= here:
        return Level.L1
    return Level.L3 if "cgroups" in here else Level.L2


def run_trial() -> dict[str, Failure | None]:
    """Return what failed of namespaces, overlay and notification, tried in another process."""
    command = [sys.executable, "-I", "-S", "-c", _START, str(_PACKAGE)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TRIAL_S,
            check=True,
        )
        found = json.loads(done.stdout)
        return {name: _failure(found[name]) for name in ("namespaces", "overlay", "notification")}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines() or [""]
        failed = ("trial", 0, said[-1])
        return {"namespaces": failed, "overlay": failed, "notification": failed}


def read_settings(proc: Path = Path("/proc")) -> HostSettings:
    """Return the switches of this host."""
    kernel = proc / "sys/kernel"
    try:
        status = (proc / "self/status").read_text()
    except OSError:
        status = ""
    return HostSettings(
        apparmor_restricts=_number(kernel / "apparmor_restrict_unprivileged_userns"),
        unprivileged_clone=_number(kernel / "unprivileged_userns_clone"),
        max_user_namespaces=_number(proc / "sys/user/max_user_namespaces"),
        filtered="Seccomp:\t2" in status,
        root=os.geteuid() == 0,
    )


def explain_namespaces(failure: Failure, settings: HostSettings) -> tuple[str, str]:
    """Return why user namespaces failed, and what to do about it."""
    step, number, message = failure
    docker = "or use the backend 'docker'"
    if settings.max_user_namespaces == 0:
        key = "user.max_user_namespaces"
        return f"{key} is 0", f"run 'sudo sysctl -w {key}=10000', {docker}"
    if settings.unprivileged_clone == 0 and not settings.root:
        key = "kernel.unprivileged_userns_clone"
        return f"{key} is 0", f"run 'sudo sysctl -w {key}=1', {docker}"
    if step == "trial":
        return f"the trial failed: {message}", f"report it with this message, {docker}"
    if settings.filtered:
        return (
            f"a seccomp filter over this process refuses them ({step}: {message}), as containers "
            "have one",
            "start the container with a seccomp profile that allows unshare and mount, or run "
            "outside of it",
        )
    if settings.apparmor_restricts:
        key = "kernel.apparmor_restrict_unprivileged_userns"
        return f"AppArmor refuses them: {key} is 1", f"run 'sudo sysctl -w {key}=0', {docker}"
    if step == "root":
        return (
            f"root here may not mount or become nobody ({message})",
            f"run as an ordinary user, {docker}",
        )
    if number in (errno.EINVAL, errno.ENOSYS):
        return f"the kernel has none ({message})", f"use a kernel with CONFIG_USER_NS, {docker}"
    return f"{step} failed: {message}", f"allow user namespaces for this process, {docker}"


def _namespaces(failure: Failure | None, settings: HostSettings) -> Feature:
    if failure is None:
        return Feature("namespaces", True, "user, mount, pid, net, ipc and uts")
    return Feature("namespaces", False, *explain_namespaces(failure, settings))


def _overlay(trial: dict[str, Failure | None]) -> Feature:
    failure = trial["overlay"]
    if failure is None:
        return Feature("overlay", True, "mounted in a user namespace")
    if trial["namespaces"] is not None:
        return Feature(
            "overlay", False, "it takes namespaces", "what gives namespaces may give it too"
        )
    reason = f"mounting it in a user namespace failed: {failure[2]}"
    return Feature("overlay", False, reason, "use Linux 6.8 or newer, with the module overlay")


def _libseccomp() -> Feature:
    try:
        instructions = len(compile_filter(gate=True)) // 8
    except SandboxUnavailable:
        remedy = "run 'apt install libseccomp2' or 'dnf install libseccomp'"
        return Feature("seccomp", False, "libseccomp is not installed", remedy)
    except OSError as error:
        reason = f"libseccomp could not make the filter: {error.strerror}"
        return Feature("seccomp", False, reason, "update libseccomp to 2.5 or newer")
    return Feature("seccomp", True, f"a filter of {instructions} instructions")


def _notification(failure: Failure | None) -> Feature:
    name = "notification"
    if failure is None:
        return Feature(name, True, "a supervisor decides on chroot and signals")
    if failure[1] == errno.EBUSY:
        reason = "a filter over this process has a listener, and there can be one only"
        return Feature(name, False, reason, "run outside of that container")
    reason = f"no seccomp filter with notification could be installed: {failure[2]}"
    return Feature(name, False, reason, "use Linux 5.5 or newer with CONFIG_SECCOMP_FILTER")


def _landlock() -> Feature:
    found = landlock.abi()
    if found:
        return Feature("landlock", True, f"ABI {found}")
    return Feature(
        "landlock",
        False,
        "the kernel has no Landlock, or does not use it",
        "use Linux 5.13 or newer, with landlock in the boot parameter lsm=",
    )


def _cgroups() -> Feature:
    home = cgroups.find()
    if isinstance(home, Feature):
        return home
    return Feature("cgroups", True, f"version {home.version}, below {home.memory}")


def _numpy() -> Feature:
    # Found, not imported: that would take longer than all the rest.
    if importlib.util.find_spec("numpy") is not None:
        return Feature("numpy", True, "for the zygote 'numpy'")
    return Feature("numpy", False, "numpy is not installed", "run 'pip install numpy'")


def _failure(found: list[str | int] | None) -> Failure | None:
    return None if found is None else (str(found[0]), int(found[1]), str(found[2]))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
