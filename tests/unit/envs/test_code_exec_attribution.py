"""A sandbox that fails is counted as the sandbox's failure, in training and on leaderboards."""

import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs import make, sandboxed
from treegrpo.envs.errors import SandboxFailed
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.play import Play, Setting
from treegrpo.rollout.boundary import Answer, answer


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    monkeypatch.setattr(sandboxed, "shared_backend", lambda *names, **options: fake)
    return fake


@pytest.mark.parametrize(
    ("tool", "arguments"), [("python", {"code": "1"}), ("submit", {"source": "pass"})]
)
def test_training_counts_it_as_the_sandboxs(
    backend: FakeBackend, tool: str, arguments: dict[str, str]
) -> None:
    env = make("treegrpo/CodeExec-v0")
    env.reset(seed=0)
    action = core_of(env).encode_call(tool, **arguments)
    backend.lost = True
    got = answer(env, action, tool_calls_left=None, keep=False)
    assert isinstance(got, Answer)
    assert (got.failure, got.end_reason, got.truncated) == ("sandbox", "sandbox_failed", True)
    assert "The supervisor is gone" in got.observation


def test_a_fork_of_a_lost_sandbox_is_the_sandboxs(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = core_of(make("treegrpo/CodeExec-v0"))
    env.reset(seed=0)

    def lose(self: object) -> object:
        return backend.create(env.state.sandbox.spec)

    monkeypatch.setattr(type(env.state.sandbox), "snapshot", lose)
    backend.lost = True
    with pytest.raises(SandboxFailed, match="SandboxLost"):
        env.fork()


def test_leaderboards_count_it_as_the_sandboxs(backend: FakeBackend) -> None:
    setting = Setting("treegrpo/CodeExec-v0", {}, "test", 0, None)
    play = Play(setting, 0, 0)
    play.start()
    assert play.live and play.env is not None
    backend.lost = True
    play.step(core_of(play.env).encode_call("python", code="1"))
    other = Play(setting, 1, 0)
    other.start()
    assert [play.failure, other.failure] == ["sandbox", "sandbox"]
    assert "The supervisor is gone" in str(play.detail)
