"""What the backend decides from what an engine says of itself; no engine is needed here."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from treegrpo.sandboxes.base import Level, Limits, SandboxSpec
from treegrpo.sandboxes.docker import footing, launch
from treegrpo.sandboxes.docker.config import DockerConfig, container_options
from treegrpo.sandboxes.docker.footing import Footing
from treegrpo.sandboxes.errors import SandboxUnavailable
from treegrpo.sandboxes.seccomp import docker_profile

LIMITS = {"MemoryLimit": True, "SwapLimit": True, "PidsLimit": True, "CpuCfsQuota": True}


def options(spec: SandboxSpec | None = None, **config: Any) -> dict[str, Any]:
    made = DockerConfig(**config)
    given: dict[str, Any] = {
        "command": ["-c", "1"],
        "seccomp": "{}",
        "runtime": made.runtime,
        "cpus": 2.0,
    }
    return container_options(made, spec or SandboxSpec(), **given)


@pytest.mark.parametrize(
    ("asked", "there", "chosen"),
    [
        (None, {"runc": {}}, None),
        (None, {"runc": {}, "runsc": {}}, "runsc"),
        ("runc", {"runc": {}, "runsc": {}}, "runc"),
        ("other", {"runc": {}}, "other"),
    ],
)
def test_gvisor_is_taken_where_it_is_unless_told_otherwise(
    asked: str | None, there: dict[str, Any], chosen: str | None
) -> None:
    config = DockerConfig(runtime=asked)
    assert launch.choose_runtime(config, {"Runtimes": there}) == chosen
    assert options(runtime=chosen).get("runtime") == chosen


@pytest.mark.parametrize("lacking", sorted(LIMITS))
def test_an_engine_that_cannot_limit_gives_a_lower_level(lacking: str) -> None:
    assert footing.highest(LIMITS) == Footing(Level.L3)
    lower = footing.highest(LIMITS | {lacking: False})
    assert lower.level == Level.L2 and lower.namespaces
    assert lower.reason.startswith("this engine cannot limit ") and "," not in lower.reason


@pytest.mark.parametrize(
    ("option", "level", "reason"),
    [
        (None, Level.L3, ""),
        (Level.L3, Level.L3, ""),
        (Level.L2, Level.L2, "the option level=2 asks for no more"),
        (Level.L1, Level.L1, "the option level=1 asks for no more"),
    ],
)
def test_a_lower_level_can_be_asked_for(option: Level | None, level: Level, reason: str) -> None:
    chosen = footing.choose(DockerConfig(level=option), LIMITS)
    assert (chosen.level, chosen.reason) == (level, reason)
    assert chosen.namespaces == (level >= Level.L2)


def test_a_level_that_is_not_there_is_refused_and_none_is_given_unasked() -> None:
    lower = footing.choose(DockerConfig(level=Level.L3), LIMITS | {"PidsLimit": False})
    config = DockerConfig(level=Level.L3)
    with pytest.raises(SandboxUnavailable) as caught:
        footing.refuse_below(lower, config, SandboxSpec())
    assert str(caught.value) == (
        "A sandbox of level L3 was asked for; the docker backend gives L2 here: this engine cannot "
        "limit pids. Let the engine use cgroups. Or accept less with level=2 and min_level=2."
    )
    footing.refuse_below(lower, DockerConfig(), SandboxSpec())
    first = Footing(Level.L1, "a", "B.")
    footing.refuse_below(first, DockerConfig(), SandboxSpec(unsafe=True))
    footing.refuse_below(first, DockerConfig(), SandboxSpec(min_level=Level.L1))
    with pytest.raises(SandboxUnavailable, match=r"gives L1 here: a\. B\. Or accept less"):
        footing.refuse_below(first, DockerConfig(), SandboxSpec())


def test_the_engines_own_profile_is_used_where_nothing_needs_mounts_unless_it_is_off() -> None:
    plain = {"SecurityOptions": ["name=seccomp,profile=default"]}
    off = {"SecurityOptions": ["name=seccomp,profile=unconfined"]}
    ours = json.dumps(docker_profile())
    assert launch.choose_profile(Footing(Level.L2), plain) == ours
    assert launch.choose_profile(Footing(Level.L1), plain) is None
    assert launch.choose_profile(Footing(Level.L1), off) == ours
    made = container_options(
        DockerConfig(), SandboxSpec(), command=[], seccomp=None, runtime=None, cpus=1.0
    )
    assert made["security_opt"] == ["no-new-privileges"]


def test_states_that_are_directories_have_a_place_that_programs_may_run_in() -> None:
    made = container_options(
        DockerConfig(),
        SandboxSpec(),
        command=[],
        seccomp=None,
        runtime=None,
        cpus=1.0,
        namespaces=False,
    )
    assert list(made["tmpfs"]) == ["/states"]
    user, group = made["user"].split(":")
    assert user == group and 10_000 <= int(user) < 60_000
    assert made["tmpfs"]["/states"].endswith(f",exec,mode=700,uid={user},gid={group}")


def test_a_containers_limits_follow_the_specification() -> None:
    limits = Limits(memory_mb=100, processes=10, workspace_mb=5, files=50)
    spec = SandboxSpec(limits=limits, memory_budget_mb=1000, max_states=7)
    made = options(spec)
    assert made["mem_limit"] == made["memswap_limit"] == (1000 + 4 * 100) << 20
    assert made["pids_limit"] == 7 + 4 * 10 + 64
    assert made["nano_cpus"] == 2 * 10**9
    assert "size=40m,nr_inodes=1424" in made["tmpfs"]["/tmp"]
    assert options(spec, memory_mb=300)["mem_limit"] == 300 << 20


def test_an_apparmor_profile_is_named_only_when_asked_for() -> None:
    assert options()["security_opt"] == ["no-new-privileges", "seccomp={}"]
    assert options(apparmor="unconfined")["security_opt"][-1] == "apparmor=unconfined"


def test_a_refused_namespace_names_what_this_engine_needs() -> None:
    said = "OSError: [Errno 1] unshare: Operation not permitted"

    def remedy(**info: Any) -> str:
        return launch.remedy(said, DockerConfig(), SandboxSpec(), info)

    assert "the option apparmor='unconfined'" in remedy(SecurityOptions=["name=apparmor"])
    assert "the option runtime='runc'" in remedy(Runtimes={"runsc": {}})
    assert "user.max_user_namespaces" in remedy(SecurityOptions=["name=seccomp"])


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Exception], None]]:
    """Let the filter's making fail."""

    def fail(error: Exception) -> None:
        def missing(*, gate: bool) -> bytes:
            raise error

        monkeypatch.setattr(footing, "compile_filter", missing)

    footing.worker_filter.cache_clear()
    yield fail
    footing.worker_filter.cache_clear()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SandboxUnavailable("no"), "libseccomp is not installed"),
        (
            OSError(22, "Invalid argument"),
            "libseccomp is too old (Invalid argument): 2.5 is needed",
        ),
    ],
)
def test_a_side_that_cannot_make_the_filter_gives_l1_and_is_told_what_to_install(
    fail: Callable[[Exception], None], error: Exception, said: str
) -> None:
    fail(error)
    lower = footing.highest(LIMITS)
    assert lower.level == Level.L1 and lower.reason.endswith(f"on this side, where {said}")
    assert lower.remedy == "Install it with 'apt install libseccomp2' or 'dnf install libseccomp'."
