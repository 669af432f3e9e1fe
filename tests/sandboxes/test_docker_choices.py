"""What the backend decides from what an engine says of itself; no engine is needed here."""

from collections.abc import Iterator
from typing import Any

import pytest

from treegrpo.sandboxes.base import Level, Limits, SandboxSpec
from treegrpo.sandboxes.docker import launch
from treegrpo.sandboxes.docker.config import DockerConfig, container_options
from treegrpo.sandboxes.errors import SandboxUnavailable

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
    assert launch.level_of(LIMITS) == Level.L3
    assert launch.level_of(LIMITS | {lacking: False}) == Level.L2
    assert len(launch.missing_limits(LIMITS | {lacking: False})) == 1


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
def no_libseccomp(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(*, gate: bool) -> bytes:
        raise SandboxUnavailable("libseccomp is not installed")

    monkeypatch.setattr(launch, "compile_filter", missing)
    launch.worker_filter.cache_clear()
    yield
    launch.worker_filter.cache_clear()


@pytest.mark.usefixtures("no_libseccomp")
def test_a_host_without_libseccomp_is_told_what_to_install() -> None:
    with pytest.raises(SandboxUnavailable, match="Install it with 'apt install libseccomp2'"):
        launch.start(None, DockerConfig(), SandboxSpec(), LIMITS)
