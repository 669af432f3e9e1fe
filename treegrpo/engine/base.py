"""The engine contract: contexts that keep their KV, are forked, and are sampled together.

A `Context` is what an engine remembers of one token sequence. Its life:

    context = engine.start(prompt_ids)              # nothing is computed yet
    engine.submit(context, params, seed=7)          # it waits for the next step
    while not (ended := engine.step()): ...         # prompt prefilled, action sampled and kept
    engine.prefill(context, observation_ids)        # pending until it is submitted again
    left, right = engine.fork(context, 2)           # O(1): both share everything so far
    engine.release(context)

Ids that were sampled stay in the context as they are: nothing is decoded and encoded again.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from treegrpo.envs.errors import TreegrpoError


class EngineRefused(TreegrpoError):
    """The engine cannot serve this model; the message says what it found and what to use."""


class ContextTooLong(TreegrpoError):
    """A context plus the tokens asked for exceed what the model has positions for."""


class NotFinite(TreegrpoError):
    """The model gave log-probabilities that are not finite: its weights are broken."""


class EngineFailed(TreegrpoError):
    """The engine broke down while it ran, such as a server that went away; says what to do."""


class StaleKV(RuntimeError):
    """Our bug: a context computed under older weights was about to be sampled."""


class ReleasedContext(RuntimeError):
    """Our bug: a context was used after its release, or with another engine."""


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; a scheduler asks before it relies on it."""

    keeps_kv: bool
    """Keys and values stay between turns: a turn computes only its new tokens."""
    forks_kv: bool
    """A fork shares what was computed, at no cost."""
    same_weights: bool
    """It samples from the trainer's own tensors: new weights need no transfer."""
    joins_running: bool = False
    """A submitted context joins those that run at the next token, not when they have ended."""
    batch_invariant: bool = False
    """What a row samples is bit for bit the same whatever runs beside it."""


@dataclass(frozen=True)
class SamplingParams:
    """How to sample one batch."""

    max_tokens: int
    """Most tokens sampled per row, stop token included; at least 1."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable token."""
    stop_ids: frozenset[int] = field(default_factory=frozenset[int])
    """A row ends with the first of these it samples, which is part of the row's ids."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise TreegrpoError(
                f"Sampling was asked for max_tokens={self.max_tokens}; ask for at least 1."
            )
        if not 0.0 <= self.temperature < float("inf"):
            raise TreegrpoError(
                f"Sampling was asked for temperature={self.temperature}; "
                "give 0 (greedy) or a positive number."
            )


@dataclass(frozen=True)
class Sampled:
    """What one row sampled."""

    ids: list[int]
    """Token ids, the stop token included where one ended the row."""
    logps: list[float]
    """Natural log-probability of each id under the very distribution it was drawn from
    (the temperature applied; for greedy rows that of temperature 1), computed in float32."""
    stopped: bool
    """True when a stop token ended the row, False when max_tokens did."""
    first_entropy: float = 0.0
    """Entropy in nats of the distribution of the first id: known before anything is drawn."""


@dataclass
class EngineStats:
    """Counters of one engine since it was made, in tokens unless named otherwise."""

    prefill_tokens: int = 0
    """Computed in prefills: prompts, observations and each turn's last sampled token."""
    decode_tokens: int = 0
    """Computed while decoding: every sampled token that another token followed."""
    sampled_tokens: int = 0
    """Sampled and handed out."""
    padding_tokens: int = 0
    """Computed for nothing: padding, and rows that ended before their batch."""
    sample_calls: int = 0
    """Batches begun: calls of step() in which rows joined."""
    decode_steps: int = 0
    """Forward passes after the prefill of a batch."""

    @property
    def computed_tokens(self) -> int:
        """Tokens whose keys and values were computed; once per token is the ideal."""
        return self.prefill_tokens + self.decode_tokens


class Context(ABC):
    """What an engine remembers of one token sequence; made by the engine, opaque to others."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens so far, those not computed yet included."""

    @property
    @abstractmethod
    def version(self) -> int | None:
        """Weight version of its keys and values; None while nothing is computed."""


class Engine(ABC):
    """Samples from one model. Not thread-safe: one caller at a time."""

    stats: EngineStats
    capabilities: Capabilities
    max_length: int
    """Most tokens of a context, sampled ones included."""
    version: int
    """The weight version that new keys and values are stamped with."""
    live_contexts: int
    """Contexts that were made and not released."""

    @abstractmethod
    def start(self, ids: Sequence[int]) -> Context:
        """Return a new context that begins with `ids` (at least one); computes nothing yet."""

    @abstractmethod
    def prefill(self, context: Context, ids: Sequence[int]) -> None:
        """Append `ids` to the context; they are computed with the next batch it is part of."""

    @abstractmethod
    def submit(self, context: Context, params: SamplingParams, seed: int) -> None:
        """Let the next `step` take up one continuation of the context.

        What it draws depends on the context and the seed alone, not on what runs beside it or
        on the order of calls. Until it has ended the context may only be released.

        Args:
            context: of this engine, and not submitted already.
            params: how to sample it.
            seed: a non-negative integer below 2**128.

        Raises:
            StaleKV: the context was computed under another weight version.
            ContextTooLong: it would exceed `max_length`.
        """

    @abstractmethod
    def step(self) -> list[tuple[Context, Sampled]]:
        """Move on what is submitted, and return what has ended, appended to its context.

        An engine that `joins_running` moves every row by at least one token; others run all
        that is submitted to the end. Returns an empty list at once when nothing is submitted.

        Raises:
            NotFinite: the model's output is not finite.
            EngineFailed: what it runs on is gone.
        """

    @property
    @abstractmethod
    def submitted(self) -> int:
        """Contexts submitted that have not ended yet."""

    def admits(self, context: Context, max_tokens: int) -> bool:
        """Return whether the context could be sampled now without crowding others out.

        A scheduler holds back what is not admitted until something has ended; submitted when
        nothing else runs, a context is always sampled.
        """
        return True

    def sample(
        self, contexts: Sequence[Context], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Sampled]:
        """Return one continuation per context, in order; nothing else may be submitted.

        Args:
            contexts: distinct contexts of this engine.
            params: shared by all.
            seeds: one per context, see `submit`.
        """
        if not len(seeds) == len(contexts) == len({id(context) for context in contexts}):
            raise TreegrpoError(
                f"Sampling was asked for {len(contexts)} contexts with {len(seeds)} seeds; give "
                "one seed per context and each context once (fork it to sample it twice)."
            )
        for context, seed in zip(contexts, seeds, strict=True):
            self.submit(context, params, seed)
        ended: dict[int, Sampled] = {}
        while self.submitted:
            ended.update({id(context): sampled for context, sampled in self.step()})
        return [ended[id(context)] for context in contexts]

    @abstractmethod
    def fork(self, context: Context, k: int) -> list[Context]:
        """Return `k` new contexts equal to this one, which stays usable; computes nothing."""

    @abstractmethod
    def release(self, context: Context) -> None:
        """Give up a context; forks of it live on. Using it afterwards is an error.

        One that is submitted is withdrawn: it will not be among what has ended.
        """

    @abstractmethod
    def set_weights(self, version: int) -> None:
        """Declare that the model now holds the weights of `version`; older KV becomes stale."""

    def close(self) -> None:
        """Give up what the engine holds besides the model; may be called twice."""
        return
