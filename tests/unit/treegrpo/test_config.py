"""The configuration: its option list, its sources, and its error messages as text."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import treegrpo
from treegrpo.config import ConfigError, TrainConfig, digest, load_config
from treegrpo.envs.errors import TreegrpoError

BASE = {"model": "some/model", "env": "treegrpo/SearchQA-v0"}

OPTIONS = [
    "model",
    "env",
    "env_kwargs",
    "split",
    "difficulty",
    "out",
    "seed",
    "steps",
    "questions",
    "trunks",
    "forks",
    "rounds",
    "expansion",
    "expansion_options",
    "start",
    "start_options",
    "noise",
    "engine",
    "engine_options",
    "rollout_options",
    "temperature",
    "max_action_tokens",
    "stop_at_tool_call",
    "max_context_tokens",
    "max_sampled_tokens_per_question",
    "max_tool_calls_per_question",
    "max_sampled_tokens",
    "credit",
    "importance",
    "weighting",
    "loss",
    "loss_options",
    "normaliser",
    "lr",
    "lr_schedule",
    "warmup_steps",
    "weight_decay",
    "betas",
    "grad_clip",
    "epochs",
    "minibatches",
    "micro_batch_tokens",
    "attention",
    "checkpoint_every",
    "save_trees",
    "threads",
    "device",
    "dtype",
]


def load(*overrides: str, **base: Any) -> TrainConfig:
    return load_config(None, overrides, {**BASE, **base})


def message(*overrides: str, **base: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*overrides, **base)
    return str(caught.value)


def test_the_option_list_is_frozen() -> None:
    # An option more is a decision: change this list and the changelog with it.
    assert list(TrainConfig.model_fields) == OPTIONS
    assert len(OPTIONS) <= 48


def test_every_option_is_documented_in_one_line() -> None:
    for name, field in TrainConfig.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description, name


def test_a_config_is_immutable() -> None:
    config = load()
    with pytest.raises(ValidationError, match="frozen"):
        config.lr = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_sources_override_each_other_in_order(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('lr = 1e-3\nsteps = 7\n[env_kwargs]\nhops = 2\nlanguage = "en"\n')
    base = {**BASE, "lr": 0.5, "steps": 1, "questions": 3, "env_kwargs": {"hops": 1, "docs": 9}}
    config = load_config(file, ["steps=8", "env_kwargs.language=fr"], base)
    assert (config.lr, config.steps, config.questions) == (1e-3, 8, 3)
    assert config.env_kwargs == {"hops": 2, "docs": 9, "language": "fr"}
    assert base["env_kwargs"] == {"hops": 1, "docs": 9}


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("lr=3", "lr", 3.0),
        ("lr = 3e-4", "lr", 3e-4),
        ("difficulty=2", "difficulty", 2),
        ("difficulty=[1, 3]", "difficulty", (1, 3)),
        ("difficulty=none", "difficulty", None),
        ("betas=[0.8, 0.95]", "betas", (0.8, 0.95)),
        ("max_sampled_tokens=1_000", "max_sampled_tokens", 1000),
        ("out=2024", "out", "2024"),
        ("out=none", "out", "none"),
        ("model='a b'", "model", "a b"),
        ("model=true", "model", "true"),
        ("env=module:Id-v0", "env", "module:Id-v0"),
        ("env_kwargs.flag=true", "env_kwargs", {"flag": True}),
        ("env_kwargs.name=plain text", "env_kwargs", {"name": "plain text"}),
        ("env_kwargs.path=a=b", "env_kwargs", {"path": "a=b"}),
        ("env_kwargs={hops = 2}", "env_kwargs", {"hops": 2}),
        ("device=cuda:1", "device", "cuda:1"),
    ],
)
def test_override_values(word: str, key: str, value: object) -> None:
    assert getattr(load(word), key) == value


def test_paths_count_as_text() -> None:
    assert load(model=Path("a/b")).model == "a/b"


def test_a_written_config_reads_back() -> None:
    config = load("difficulty=[1, 2]", "loss_options.dual_clip=3", "env_kwargs.hops=2")
    assert load_config(base=config.model_dump(mode="json")) == config
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_digest_depends_on_every_setting_and_on_nothing_else() -> None:
    assert digest(load("lr=1")) == digest(load("lr=1.0"))
    words = ["seed=1", "lr=1e-3", "difficulty=1", "out=elsewhere", "env_kwargs.x=1"]
    assert len({digest(load()), *(digest(load(word)) for word in words)}) == 1 + len(words)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("steps=0", "steps: got 0; allowed: an integer >= 1"),
        ("steps=2.5", "steps: got 2.5; allowed: an integer >= 1"),
        ("steps=true", "steps: got True; allowed: an integer >= 1"),
        ("lr=fast", "lr: got 'fast'; allowed: a finite number > 0 and <= 1000"),
        ("lr=inf", "lr: got inf; allowed: a finite number > 0 and <= 1000"),
        (
            "loss_options.clip_low=1",
            "loss_options.clip_low: got 1; allowed: a finite number >= 0 and < 1, or none",
        ),
        (
            "loss_options.dual_clip=1",
            "loss_options.dual_clip: got 1; allowed: a finite number > 1, or none",
        ),
        (
            "loss_options.kl_beta=-0.1",
            "loss_options.kl_beta: got -0.1; allowed: a finite number >= 0",
        ),
        (
            "loss_options.correction=tiss",
            "loss_options.correction: got 'tiss'; allowed: 'none' or 'tis' or 'icepop' or "
            "'sequence_mask'",
        ),
        (
            "loss_options.clip=1",
            "Unknown option 'loss_options.clip'. Did you mean 'clip_low'?",
        ),
        ("lr_schedule=cosine", "lr_schedule: got 'cosine'; allowed: 'linear' or 'constant'"),
        ("noise=1", "noise: got 1; allowed: 'inherit' or 'shared' or 'fresh'"),
        ("env=", "env: got ''; allowed: a text that is not empty"),
        (
            "device=gpu",
            r"device: got 'gpu'; allowed: a text that matches ^(auto|cpu|cuda(:\d+)?)$",
        ),
        (
            "difficulty=[]",
            "difficulty: got []; allowed: an integer >= 1, or a list, not empty, of an integer "
            ">= 1, or none",
        ),
        (
            "betas=[0.9, 1]",
            "betas: got [0.9, 1]; allowed: a list of a finite number >= 0 and < 1 and a finite "
            "number >= 0 and < 1",
        ),
        (
            "env_kwargs=3",
            "env_kwargs: got 3; allowed: a table of names and plain values",
        ),
    ],
)
def test_a_value_out_of_range_names_option_value_and_rule(word: str, expected: str) -> None:
    assert message(word) == expected


def test_all_wrong_values_are_reported_at_once() -> None:
    assert message("lr=x", "steps=0").splitlines() == [
        "steps: got 0; allowed: an integer >= 1",
        "lr: got 'x'; allowed: a finite number > 0 and <= 1000",
    ]


def test_a_date_is_not_a_plain_value() -> None:
    assert "env_kwargs: got {'day': datetime.date(2020, 1, 1)}" in message(
        "env_kwargs.day=2020-01-01"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["forks=0"],
            "rounds: 1 has no effect with forks=0; set both to 0 for chains, or neither",
        ),
        (
            ["rounds=0"],
            "forks: 2 has no effect with rounds=0; set both to 0 for chains, or neither",
        ),
        (
            ["trunks=1", "forks=0", "rounds=0"],
            "trunks: 1 without forks leaves nothing to compare; allowed: at least 2, or forks",
        ),
        (
            ["max_action_tokens=2048"],
            "max_action_tokens: 2048 does not fit into max_context_tokens=2048; allowed: less",
        ),
        (
            ["warmup_steps=50"],
            "warmup_steps: 50 never ends; allowed: less than steps=50",
        ),
        (["minibatches=15"], "minibatches: 15; allowed: at most questions=14"),
    ],
)
def test_a_setting_without_effect_is_refused(words: list[str], expected: str) -> None:
    assert message(*words) == expected


def test_unknown_options_get_a_suggestion() -> None:
    assert message("lrr=3", stepz=1).splitlines() == [
        "Unknown option 'stepz'. Did you mean 'steps'?",
        "Unknown option 'lrr'. Did you mean 'lr'?",
    ]
    assert message("zzz=3") == f"Unknown option 'zzz'. Options: {', '.join(OPTIONS)}"
    assert message("stepz.x=3") == "Unknown option 'stepz'. Did you mean 'steps'?"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lr"], "Override 'lr' is not of the form key=value, such as lr=3e-4."),
        (["=3"], "Override '=3' is not of the form key=value, such as lr=3e-4."),
        (["lr=1", "lr=2"], "Override 'lr' is given twice. Keep one."),
        (["lr.x=1"], "Override 'lr.x=1': option 'lr' has no parts. Write lr=value."),
    ],
)
def test_malformed_overrides(words: list[str], expected: str) -> None:
    assert message(*words) == expected


def test_required_options_say_what_they_are() -> None:
    with pytest.raises(TreegrpoError) as caught:
        load_config(None, ["env=treegrpo/SQL-v0"])
    assert str(caught.value) == (
        "model: not given, and there is no default. Folder or hub id of a causal language model "
        "whose tokenizer has a chat template."
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, folder, broken, binary = (tmp_path / name for name in ("no", "dir", "bad", "bin"))
    folder.mkdir()
    broken.write_text("seed = 1\nlr = = 3\n")
    binary.write_bytes(b"model = '\xff'")
    expected = {
        missing: f"Config file '{missing}' does not exist. Check the path.",
        folder: f"Config file '{folder}' cannot be read (",
        broken: f"Config file '{broken}' is not valid TOML: Invalid value (at line 2, column 6).",
        binary: f"Config file '{binary}' cannot be read (",
    }
    for path, start in expected.items():
        with pytest.raises(ConfigError) as caught:
            load_config(path, [], BASE)
        assert str(caught.value).startswith(start)


def test_unknown_keys_of_a_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[optimizer]\nlr = 3\n")
    with pytest.raises(ConfigError, match="Unknown option 'optimizer'"):
        load_config(file, [], BASE)


def test_every_option_is_read_by_the_trainer() -> None:
    package = Path(treegrpo.__file__).parent
    files = [file for file in package.rglob("*.py") if file.name != "config.py"]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    pattern = r"(config|settings|options)\.{}\b"
    unread = [name for name in OPTIONS if not re.search(pattern.format(name), source)]
    assert unread == []
