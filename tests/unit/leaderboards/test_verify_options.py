"""Ways to verify: a sample, limits on hostile environments, accepted changes, signatures."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.cheats import copied
from tests.unit.leaderboards.toy import TOY, ToyAgent, forge, half_right
from treegrpo.envs import register
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards import signature
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.guarded import Limits
from treegrpo.leaderboards.signature import check_signature, sign
from treegrpo.leaderboards.verify import Options, Sample, verify

HOSTILE = """
import os, sys, time
from tests.unit.leaderboards.toy import Toy
class Hostile(Toy):
    def step(self, action):
        if os.environ.get("TOY_HOSTILE") and self.episode.index == 1:
            {deed}
        return super().step(action)
"""
DEEDS = {
    "Spin": ("while True: pass", "timeout", "no end of the step within 3 s"),
    "Sleep": ("time.sleep(1000)", "timeout", "no end of the step within 3 s"),
    "Creep": ("time.sleep(2.5)", "timeout", "no end of the episode within 6 s"),
    "Exit": ("os._exit(7)", "diverged", "the replaying process ended with status 7"),
    "Print": ('print(chr(123) + "outcome" + chr(125), flush=True)', "match", ""),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "original"
    evaluate(ToyAgent(half_right), TOY, split="test", num_tasks=10, trials=2, seed=1, out=out)
    return out


@pytest.mark.parametrize("name", DEEDS)
def test_a_hostile_environment_costs_its_own_episodes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    deed, outcome, says = DEEDS[name]
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"hostile_{name.lower()}.py").write_text(HOSTILE.format(deed=deed))
    env_id = f"tests/Hostile{name}-v0"
    register(env_id, f"hostile_{name.lower()}:Hostile")
    agent = ToyAgent(lambda view: "I give up.")
    evaluate(agent, env_id, split="test", num_tasks=3, trials=1, seed=0, out=tmp_path / "b")
    monkeypatch.setenv("TOY_HOSTILE", "1")
    # A step that creeps is in time, also on a busy machine: only the episode is not.
    limits = Limits(step_s=30 if name == "Creep" else 3, episode_s=6)
    began = time.monotonic()
    report = verify(tmp_path / "b", Options(limits=limits))
    assert time.monotonic() - began < 60
    assert [found.outcome for found in report.outcomes] == ["match", outcome, "match"]
    assert says in str(report.first_difference or "")
    if outcome == "timeout":
        assert "task 1, trial 0: timeout at " in str(report.first_difference)


def test_limits_find_what_a_replay_in_this_process_finds(original: Path, tmp_path: Path) -> None:
    limits = Limits(step_s=60, episode_s=60)
    assert verify(original, Options(limits=limits)).verified
    forged = forge(original, tmp_path / "f", episode=lambda e: {"success": True})
    guarded, plain = verify(forged, Options(limits=limits)), verify(forged)
    assert guarded.outcomes == plain.outcomes
    assert not guarded.verified


@pytest.mark.parametrize(("step_s", "episode_s"), [(0, 1), (1, -1), (float("nan"), 1)])
def test_limits_of_nothing_are_refused(step_s: float, episode_s: float) -> None:
    with pytest.raises(TreegrpoError, match="finite number of seconds above 0"):
        Limits(step_s, episode_s)


def test_a_sample_says_what_it_guarantees(original: Path) -> None:
    report = verify(original, Options(sample=5, sample_seed=3))
    assert (len(report.outcomes), report.verified) == (5, True)
    assert report.sample == Sample(5, 20, 3)
    assert any("5 of 20 episodes were drawn with seed 3" in line for line in report.lines())
    assert set(report.words.values()) == {"declared"}
    again = verify(original, Options(sample=5, sample_seed=3))
    other = verify(original, Options(sample=5, sample_seed=4))
    assert again.outcomes == report.outcomes != other.outcomes
    assert verify(original, Options(sample=20)).sample is None


def test_sixty_of_many_find_one_forger_in_twenty() -> None:
    assert Sample(60, 10_000, 0).detection(0.05) == pytest.approx(0.954, abs=0.001)
    assert "95.4 % for f = 5 %" in str(Sample(60, 10_000, 0))


def test_nobody_can_know_the_sample_before(original: Path) -> None:
    seeds = {str(verify(original, Options(sample=1)).sample) for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize("fields", [{"sample": 0}, {"sample_seed": 1}])
def test_a_sample_without_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(TreegrpoError, match="sample"):
        Options(**fields)


needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (Debian: openssh-client)"
)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ann", "-f", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    return path


@needs_ssh_keygen
def test_a_signature_names_its_key_and_is_of_this_bundle(
    original: Path, tmp_path: Path, key: Path
) -> None:
    copied(original, tmp_path / "b")
    digest = read_bundle(original).digest
    assert check_signature(tmp_path / "b", digest) is None
    sign(tmp_path / "b", digest, key)
    report = verify(tmp_path / "b", Options(sample=1))
    assert report.signer is not None
    assert report.signer.fingerprint.startswith("SHA256:")
    known = tmp_path / "allowed"
    known.write_text(f"ann@example.org {(tmp_path / 'key.pub').read_text()}")
    signer = check_signature(tmp_path / "b", digest, known)
    assert signer is not None
    assert (signer.identity, signer.fingerprint) == ("ann@example.org", report.signer.fingerprint)
    known.write_text("")
    with pytest.raises(BundleError, match="no valid signature"):
        check_signature(tmp_path / "b", digest, known)
    with pytest.raises(BundleError, match="no valid signature"):
        check_signature(tmp_path / "b", "0" * 64)


@needs_ssh_keygen
def test_any_byte_of_a_signature_counts(original: Path, tmp_path: Path, key: Path) -> None:
    copied(original, tmp_path / "b")
    digest = read_bundle(original).digest
    sign(tmp_path / "b", digest, key)
    file = tmp_path / "b" / "run.sig"
    data = file.read_bytes()
    for at in range(0, len(data), 7):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(BundleError, match=r"run\.sig"):
            check_signature(tmp_path / "b", digest)
    file.write_bytes(data + b"\n")
    with pytest.raises(BundleError, match=r"run\.sig .* It was altered"):
        read_bundle(tmp_path / "b")


def test_without_ssh_keygen_the_remedy_is_named(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BundleError, match=r"no ssh-keygen on the PATH\. Install OpenSSH"):
        sign(tmp_path, "0" * 64, tmp_path / "key")


def test_a_key_that_is_none_is_refused(original: Path, tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen (Debian: openssh-client)")
    (tmp_path / "key").write_text("no key")
    os.chmod(tmp_path / "key", 0o600)
    with pytest.raises(BundleError, match="ssh-keygen refused: "):
        sign(tmp_path, "0" * 64, tmp_path / "key")
    assert not (tmp_path / signature.SIGNATURE).exists()


def test_a_replaying_process_leaves_nothing_running(original: Path) -> None:
    """The environment's own children end with it."""
    before = set(Path("/proc").glob("[0-9]*"))
    limits = Limits(step_s=60, episode_s=60)
    assert verify(original, Options(limits=limits, sample=2)).verified
    mine = [
        path
        for path in set(Path("/proc").glob("[0-9]*")) - before
        if f"\nPPid:\t{os.getpid()}\n" in _status(path)
    ]
    assert mine == []


def _status(path: Path) -> str:
    try:
        return (path / "status").read_text()
    except OSError:
        return ""


def test_a_scripted_oracle_replays_under_limits(tmp_path: Path) -> None:
    evaluate(
        scripted_agent("oracle"), "treegrpo/SearchQA-v0", split="test", num_tasks=2, trials=1,
        seed=0, out=tmp_path / "b",
    )  # fmt: skip
    assert verify(tmp_path / "b", Options(limits=Limits(step_s=60, episode_s=120))).verified
