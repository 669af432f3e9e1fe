"""What the docker backend can give here: the engine is asked, and a container is tried."""

from __future__ import annotations

import os
from typing import Any

import docker.errors

from treegrpo.sandboxes.base import Capabilities, Feature, Level, Limits, SandboxSpec
from treegrpo.sandboxes.docker import engine, footing, launch
from treegrpo.sandboxes.docker.config import DockerConfig
from treegrpo.sandboxes.docker.footing import Footing

NAME = "docker"
_FIND_NUMPY = b"import importlib.util; importlib.util.find_spec('numpy') is not None"
_SMALL = SandboxSpec(limits=Limits(memory_mb=64), memory_budget_mb=128, max_states=8)


def probe(config: DockerConfig) -> Capabilities:
    """Return what holds with this configuration, with reason and remedy for what does not."""
    try:
        client = engine.connect(config.timeout_s)
    except engine.EngineRefused as error:
        return Capabilities(NAME, Level.L0, (_refused("engine", error),))
    try:
        info: dict[str, Any] = client.info()
        features = [_engine(info), _image(client, config.image), _runtime(config, info)]
        features += [_seccomp(info), _filter(), _cgroups(info)]
        level = Level.L0
        if all(f.present for f in features if f.name in ("image", "seccomp")):
            level, found = _inside(client, config, info)
            features += found
    except (docker.errors.DockerException, OSError) as error:
        lost = Feature("engine", False, f"it stopped to answer ({error})", engine.START)
        return Capabilities(NAME, Level.L0, (lost,))
    finally:
        client.close()
    return Capabilities(NAME, level, tuple(features))


def _engine(info: dict[str, Any]) -> Feature:
    where = os.environ.get("DOCKER_HOST") or engine.DEFAULT_SOCKET
    return Feature("engine", True, f"Docker {info['ServerVersion']} at {where}")


def _image(client: Any, image: str) -> Feature:
    try:
        with engine.refusals(f"The image {image} was asked for", image):
            found = client.images.get(image)
    except engine.EngineRefused as error:
        return _refused("image", error)
    return Feature("image", True, f"{image} ({found.short_id})")


def _runtime(config: DockerConfig, info: dict[str, Any]) -> Feature:
    chosen = launch.choose_runtime(config, info)
    there: dict[str, Any] = info.get("Runtimes") or {}
    if chosen == launch.RUNSC and chosen in there:
        return Feature(launch.RUNSC, True, "containers run on gVisor's kernel, not on the host's")
    used = chosen or info.get("DefaultRuntime", "the engine's default")
    reason = f"the runtime {used} is used, so containers share the host's kernel"
    remedy = "install gVisor and run 'sudo runsc install', then restart the engine"
    if chosen is not None and chosen not in there:
        reason = f"the engine has no runtime {chosen!r}, only {', '.join(sorted(there))}"
        remedy = "install it, or leave the option runtime out"
    elif launch.RUNSC in there:
        remedy = "leave the option runtime out"
    return Feature(launch.RUNSC, False, reason, remedy)


def _seccomp(info: dict[str, Any]) -> Feature:
    if any("name=seccomp" in option for option in info.get("SecurityOptions") or ()):
        how = "our own profile; where nothing inside needs mounts, the engine's"
        return Feature("seccomp", True, how)
    remedy = "use an engine built with seccomp, on a kernel with CONFIG_SECCOMP_FILTER"
    return Feature("seccomp", False, "the engine does not list it", remedy)


def _filter() -> Feature:
    fault = footing.filter_fault()
    if fault:
        return Feature("filter", False, fault, footing.INSTALL)
    return Feature("filter", True, "of each state's system calls, made with libseccomp")


def _cgroups(info: dict[str, Any]) -> Feature:
    lacking = footing.missing_limits(info)
    version = info.get("CgroupVersion", "1")
    if not lacking:
        return Feature("cgroups", True, f"memory, pids and cpu by cgroups of version {version}")
    return Feature(
        "cgroups",
        False,
        f"the engine cannot limit {', '.join(lacking)} (cgroups of version {version})",
        "on Debian and Ubuntu boot with 'cgroup_enable=memory swapaccount=1'; a rootless engine "
        "needs cgroups of version 2 with delegated controllers",
    )


def _inside(client: Any, config: DockerConfig, info: dict[str, Any]) -> tuple[Level, list[Feature]]:
    """Return what a container can do, and at which level, from one that is started for it."""
    stand = footing.choose(config, info)
    found: list[Feature] = []
    if stand.namespaces:
        stands, found = _tried(client, config, info, stand)
        if stands or config.level is not None:
            return stand.level if stands else Level.L0, found
        stand = footing.Footing(Level.L1)
    else:
        found.append(Feature("namespaces", False, stand.reason, stand.remedy))
    stands, more = _tried(client, config, info, stand)
    return stand.level if stands else Level.L0, found + more


def _tried(
    client: Any, config: DockerConfig, info: dict[str, Any], stand: Footing
) -> tuple[bool, list[Feature]]:
    """Return whether a tree can be had at this footing, and the features it shows."""
    ground = "namespaces" if stand.namespaces else "landlock"
    forks = "overlays and seccomp notification" if stand.namespaces else "copied directories"
    try:
        started = launch.start(client, config, _SMALL, info, stand)
    except engine.EngineRefused as error:
        return False, [_refused(ground, error)]
    how = f"the container's kernel has it, ABI {started.landlock_abi}"
    if stand.namespaces:
        how = "user and mount namespaces, tried in a container"
    found = [Feature(ground, True, how)]
    try:
        connection, first = launch.plant(started, config, _SMALL)
    except engine.EngineRefused as error:
        return False, [*found, _refused("forks", error)]
    try:
        header = {"state": first, "form": "code", "code_bytes": len(_FIND_NUMPY), "timeout_s": 20}
        answer, _ = connection.call("exec", _FIND_NUMPY, **header)
    finally:
        connection.close()
    found.append(Feature("forks", True, f"{forks}, tried"))
    if answer["value"] == "True":
        return True, [*found, Feature("numpy", True, "in the image, for the zygote 'numpy'")]
    no_numpy = f"{config.image} has none"
    return True, [*found, Feature("numpy", False, no_numpy, "use an image with numpy in it")]


def _refused(name: str, error: engine.EngineRefused) -> Feature:
    return Feature(name, False, error.found, error.remedy)
