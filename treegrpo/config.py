"""The one configuration of the trainer, and how it is read.

    config = load_config(Path("run.toml"), ["lr=3e-4", "env_kwargs.top_k=3"])

Sources, each overriding the one before: the defaults below, `base`, the TOML file, the
`key=value` overrides. A key that does not exist, a value out of range and a setting that has
no effect are errors. Nothing is read from environment variables.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from treegrpo.envs.digest import digest as digest_value
from treegrpo.envs.errors import TreegrpoError, suggest
from treegrpo.losses.options import LossOptions

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]
# TOML and JSON have lists only; strict mode would refuse them where a tuple is meant.
Levels = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


_STRICT = ConfigDict(
    frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
)


class ConfigError(TreegrpoError):
    """A configuration that cannot be used; one line per problem: key, given, allowed."""


class RolloutOptions(BaseModel):
    """How the scheduler works; none of these changes what a seed gives, but limits may cut it."""

    model_config = _STRICT

    threads: Count = 8
    """Threads that environments run in."""
    episode_timeout_s: Annotated[float, Field(gt=0)] | None = 600.0
    """Seconds that the environment may take for one episode, all its steps together."""
    max_live: Count = 512
    """Most branches that have an environment at once; more wait for their turn."""
    max_sampled_tokens_per_step: Count | None = None
    """Hard budget of sampled tokens of one training step, divided among its questions."""
    max_tool_calls_per_step: Count | None = None
    """Hard budget of tool calls of one training step, divided among its questions."""
    barriers: bool = False
    """Wait at each turn and round for every environment, as published trees do; for comparison."""
    trace_steps: CountOrZero = 0
    """Steps from the first on whose time line is written to the run folder, for Perfetto."""


class TrainConfig(BaseModel):
    """Every setting of a training run; immutable, complete, and written with each run."""

    model_config = _STRICT

    # What is trained, on what, and where the run is written.
    model: Name
    """Folder or hub id of a causal language model whose tokenizer has a chat template."""
    env: Name
    """Id of a registered environment, such as treegrpo/SearchQA-v0."""
    env_kwargs: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Keyword arguments of the environment; one at a time on the command line: env_kwargs.x=1."""
    split: Name = "train"
    """Split of the environment that questions are drawn from."""
    difficulty: Count | Levels | None = None
    """Difficulty of the questions: one level, a list to cycle through, or the environment's own."""
    out: Name = "runs/train"
    """Folder that the run is written to."""
    seed: CountOrZero = 0
    """The run's only source of randomness."""
    steps: Count = 50
    """Training steps; each samples `questions` questions and updates the weights."""

    # The trees: M trunks, N forks a round, L rounds.
    questions: Count = 14
    """Questions per step."""
    trunks: Count = 4
    """M: trees per question, each begun from reset."""
    forks: CountOrZero = 2
    """N: nodes of each tree that are forked in one round; 0 makes plain chains."""
    rounds: CountOrZero = 1
    """L: rounds of forking; 0 makes plain chains."""
    expansion: Name = "random"
    """Where trees are forked: random, uniform_depth, entropy, spread, full, or one of yours."""
    expansion_options: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Settings of the expansion, as expansion_options.max_depth=6."""
    start: Name = "reset"
    """Where trees begin: reset, oracle_prefix, archive, or one of yours."""
    start_options: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Settings of the start state, as start_options.share=0.5."""
    noise: Literal["inherit", "shared", "fresh"] = "inherit"
    """Environment randomness of siblings: the parent's stream, one seed for all, or a new one."""

    # Sampling.
    engine: Name = "native"
    """What samples: native (paged KV), hf (the reference), vllm (a server over HTTP)."""
    engine_options: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Settings of the engine, as engine_options.kv_tokens=100000."""
    rollout_options: RolloutOptions = RolloutOptions()
    """How rollouts are scheduled, as rollout_options.threads=4."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Sampling temperature; log-probabilities are those of the tempered distribution."""
    max_action_tokens: Count = 64
    """Most tokens sampled for one agent step."""
    stop_at_tool_call: bool = False
    """End an action with its first tool call, where the tokenizer has one token that closes it."""
    max_context_tokens: Count = 2048
    """Most tokens of one episode, prompt and observations included."""

    # Hard budgets, counted once per edge of the tree; none means no limit.
    max_sampled_tokens_per_question: Count | None = None
    """Sampled tokens that all trees of one question may spend together."""
    max_tool_calls_per_question: Count | None = None
    """Tool calls that all trees of one question may spend together."""
    max_sampled_tokens: Count | None = None
    """Sampled tokens of the whole run; training stops when they are spent."""

    # Credit and loss.
    credit: Name = "intra_inter"
    """Estimator that turns the rewards of a question's leaves into advantages."""
    importance: Name = "uniform"
    """Weight of each step on its credit: uniform, learned, or a function of yours."""
    weighting: Name = "leaf"
    """How the leaves below a fork divide what they share: leaf, path, depth or unique."""
    loss: Name = "grpo"
    """Loss over the sampled tokens."""
    loss_options: LossOptions = LossOptions()
    """Settings of the loss, as loss_options.clip_low=0.1; what is not set is the loss's own."""
    normaliser: Name | None = None
    """What the summed loss of an update is divided by; none is the loss's own."""

    # Optimiser (AdamW).
    lr: Annotated[float, Field(gt=0, le=1e3)] = 4e-4
    """Peak learning rate."""
    lr_schedule: Literal["linear", "constant"] = "linear"
    """Learning rate after the warm-up: linear decay to zero at the last step, or constant."""
    warmup_steps: CountOrZero = 0
    """Steps over which the learning rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of the first and second moments."""
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the whole gradient."""
    epochs: Count = 1
    """Passes over each step's rollouts."""
    minibatches: Count = 1
    """Updates per pass; each takes an equal share of the questions."""
    micro_batch_tokens: Count = 16_384
    """Most padded tokens in one forward pass: bounds memory, does not change the gradient."""
    attention: Name = "auto"
    """How rollouts are computed: auto, flat (a row per leaf), or a tree attention by name."""

    # Bookkeeping and machine.
    checkpoint_every: Count = 10
    """Steps between checkpoints; the last step always writes one."""
    save_trees: CountOrZero = 8
    """Questions whose trees are saved with each checkpoint."""
    threads: Count | None = None
    """CPU threads of torch; none leaves torch's own choice."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """Where the model runs: auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights."""

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        problems = list(_disagreements(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def load_config(
    toml_path: Path | str | None = None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Return the configuration resolved from all sources.

    Args:
        toml_path: a TOML file whose keys are the fields of `TrainConfig`.
        overrides: `key=value` words; a value is a TOML literal, `none`, or else plain text.
        base: field values that the file and the overrides replace; paths count as text.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a value that is not allowed;
            the message names every unknown key, or else every wrong value.
    """
    values: dict[str, Any] = {}
    for source in (base or {}, _read_toml(toml_path), _parse_overrides(overrides)):
        _merge(values, source)
    unknown = [_unknown_key(key) for key in values if key not in TrainConfig.model_fields]
    if unknown:
        raise ConfigError("\n".join(unknown))
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, values)) from None


def digest(config: TrainConfig) -> str:
    """Return the sha256 over every setting; equal settings, equal digest."""
    return digest_value(config.model_dump(mode="json"))


def _disagreements(config: TrainConfig) -> Iterable[str]:
    """Yield one line for each pair of settings that exclude each other."""
    c = config
    if bool(c.forks) != bool(c.rounds):
        idle, other = ("forks", "rounds") if c.forks else ("rounds", "forks")
        value = getattr(c, idle)
        yield f"{idle}: {value} has no effect with {other}=0; set both to 0 for chains, or neither"
    if c.trunks == 1 and not c.forks:
        yield "trunks: 1 without forks leaves nothing to compare; allowed: at least 2, or forks"
    if c.max_action_tokens >= c.max_context_tokens:
        yield (
            f"max_action_tokens: {c.max_action_tokens} does not fit into "
            f"max_context_tokens={c.max_context_tokens}; allowed: less"
        )
    budgets = {
        "max_sampled_tokens_per_question": c.max_sampled_tokens_per_question,
        "max_sampled_tokens": c.max_sampled_tokens,
        "rollout_options.max_sampled_tokens_per_step": (
            c.rollout_options.max_sampled_tokens_per_step
        ),
    }
    for name, limit in budgets.items():
        if limit is not None and limit < c.max_action_tokens:
            yield (
                f"{name}: {limit} does not let one action of max_action_tokens="
                f"{c.max_action_tokens} begin; allowed: at least as many"
            )
    if c.warmup_steps >= c.steps:
        yield f"warmup_steps: {c.warmup_steps} never ends; allowed: less than steps={c.steps}"
    if c.micro_batch_tokens < c.max_context_tokens:
        yield (
            f"micro_batch_tokens: {c.micro_batch_tokens} cannot hold an episode of "
            f"max_context_tokens={c.max_context_tokens}; allowed: at least as many"
        )
    if c.minibatches > c.questions:
        yield f"minibatches: {c.minibatches}; allowed: at most questions={c.questions}"


def _read_toml(path: Path | str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"Config file '{path}' does not exist. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Config file '{path}' cannot be read ({error}). Give a TOML file in UTF-8."
        ) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"Config file '{path}' is not valid TOML: {error}. Correct it there."
        ) from None


def _parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for word in overrides:
        dotted, equals, text = word.partition("=")
        dotted = dotted.strip()
        if not equals or not dotted:
            raise ConfigError(f"Override '{word}' is not of the form key=value, such as lr=3e-4.")
        if dotted in seen:
            raise ConfigError(f"Override '{dotted}' is given twice. Keep one.")
        seen.add(dotted)
        key, dot, inner = dotted.partition(".")
        if not dot:
            _merge(values, {key: _literal(text, is_text=_is_text(key))})
        elif key in _MODELS and inner not in _MODELS[key].model_fields:
            raise ConfigError(_unknown_key(inner, table=key))
        elif key in _TABLES:
            _merge(values, {key: {inner: _literal(text, is_text=False)}})
        elif key in TrainConfig.model_fields:
            raise ConfigError(f"Override '{word}': option '{key}' has no parts. Write {key}=value.")
        else:
            raise ConfigError(_unknown_key(key))
    return values


def _literal(text: str, *, is_text: bool) -> Any:
    """Return the value a word stands for; `is_text` keeps names like 7 or true as text."""
    text = text.strip()
    if not is_text and text == "none":
        return None
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    if set(parsed) != {"value"} or (is_text and not isinstance(parsed["value"], str)):
        return text
    return parsed["value"]


def _is_text(key: str) -> bool:
    field = TrainConfig.model_fields.get(key)
    return field is not None and field.annotation is str


def _merge(values: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Lay `source` over `values`; tables are joined key by key."""
    for key, value in source.items():
        before = values.get(key)
        if isinstance(value, LossOptions):
            value = value.given()
        elif isinstance(value, RolloutOptions):
            value = value.model_dump(exclude_unset=True)
        if key in _TABLES and isinstance(before, dict) and isinstance(value, Mapping):
            value = {**cast("dict[str, Any]", before), **cast("Mapping[str, Any]", value)}
        values[key] = str(value) if isinstance(value, Path) else value


def _unknown_key(key: str, *, table: str = "") -> str:
    known = _MODELS[table].model_fields if table else TrainConfig.model_fields
    name = f"{table}.{key}" if table else key
    return f"Unknown option '{name}'.{suggest(key, known) or ' Options: ' + ', '.join(known)}"


def _explain(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Return one line per option: its name, what was given, what is allowed."""
    rules = TrainConfig.model_json_schema(ref_template="{model}")["properties"]
    lines: dict[str, None] = {}  # several complaints about one option make one line
    for detail in error.errors(include_url=False):
        if not detail["loc"]:
            lines[detail["msg"].removeprefix("Value error, ")] = None
            continue
        key = str(detail["loc"][0])
        if key in _MODELS and len(detail["loc"]) > 1:
            lines[_explain_inner(key, str(detail["loc"][1]), values[key])] = None
        elif key in values:
            lines[f"{key}: got {values[key]!r}; allowed: {_allowed(rules[key])}"] = None
        else:
            doc = TrainConfig.model_fields[key].description
            lines[f"{key}: not given, and there is no default. {doc}"] = None
    return "\n".join(lines)


def _explain_inner(table: str, name: str, given: Mapping[str, Any]) -> str:
    if name not in _MODELS[table].model_fields:
        return _unknown_key(name, table=table)
    rule = _MODELS[table].model_json_schema()["properties"][name]
    return f"{table}.{name}: got {given[name]!r}; allowed: {_allowed(rule)}"


def _allowed(rule: Mapping[str, Any]) -> str:
    """Return a JSON schema of one option in words."""
    if "anyOf" in rule:
        return ", or ".join(_allowed(one) for one in rule["anyOf"])
    if "enum" in rule:
        return " or ".join(repr(one) for one in rule["enum"])
    if "prefixItems" in rule:
        return "a list of " + " and ".join(_allowed(one) for one in rule["prefixItems"])
    if "$ref" in rule:
        return "a table of " + ", ".join(_MODELS_BY_NAME[rule["$ref"]].model_fields)
    if rule.get("type") == "array":
        return f"a list, not empty, of {_allowed(rule['items'])}"
    bounds = [f"{sign} {rule[name]:g}" for name, sign in _BOUNDS.items() if name in rule]
    if "pattern" in rule:
        return f"a text that matches {rule['pattern']}"
    return " ".join([_TYPES[rule["type"]], " and ".join(bounds)]).rstrip()


_MODELS: dict[str, type[BaseModel]] = {
    "loss_options": LossOptions,
    "rollout_options": RolloutOptions,
}
_MODELS_BY_NAME = {model.__name__: model for model in _MODELS.values()}
_TABLES = ("env_kwargs", "expansion_options", "start_options", "engine_options", *_MODELS)
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_TYPES = {
    "integer": "an integer",
    "number": "a finite number",
    "string": "a text that is not empty",
    "object": "a table of names and plain values",
    "null": "none",
}
