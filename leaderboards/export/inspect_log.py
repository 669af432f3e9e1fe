"""A bundle as an evaluation log of inspect_ai, version 2, in JSON.

    eval        what was run: task, options, model, settings, limits, versions
    plan        the agent, as the one solver
    results     success and reward, with standard error and interval over tasks
    stats       when it began, and the tokens, where every episode has counted them
    samples     one per episode: epoch is the trial + 1, messages, scores, error or limit

The order of the fields matters: readers of a header stop at the samples. Format: UKGovernmentBEIS/
inspect_ai, src/inspect_ai/log/_log.py. Its `input_tokens` leaves out what a cache served.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from treegrpo.leaderboards.bundle import Bundle
from treegrpo.leaderboards.export.content import (
    UNKNOWN,
    Said,
    Score,
    dataset_id,
    facts,
    model_id,
    provenance,
    score,
    transcript,
)
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest
from treegrpo.leaderboards.summary import EvaluationSummary, summarise

NAME = "inspect"
LOG_VERSION = 2
_LIMITS = {"turn_limit": "turn", "time_limit": "time"}
"""End reasons that the format knows as limits."""


def write(bundle: Bundle, out: Path) -> None:
    """Write the file, one sample at a time."""
    with out.open("w", encoding="ascii") as file:
        file.write(_json(header(bundle))[:-1] + ',"samples":[')
        for number, one in enumerate(_samples(bundle)):
            file.write(("," if number else "") + _json(one))
        file.write("]}\n")


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def header(bundle: Bundle) -> dict[str, Any]:
    """Return the log without its samples."""
    manifest, summary = bundle.manifest, summarise(bundle)
    return {
        "version": LOG_VERSION,
        "status": "success",
        "eval": _spec(bundle),
        "plan": {
            "name": "plan",
            "steps": [{"solver": manifest.agent.name, "params": manifest.agent.settings}],
            "config": {},
        },
        "results": _results(bundle, summary),
        "stats": {
            "started_at": manifest.created,
            # A bundle does not say when the last episode ended.
            "completed_at": "",
            "model_usage": _total_usage(bundle),
        },
    }


def _spec(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    indices = [task.index for task in manifest.tasks]
    version = manifest.env_id.rpartition("-v")[2]
    return {
        "eval_id": manifest.digest[:22],
        "run_id": manifest.digest[:22],
        "created": manifest.created,
        "task": dataset_id(manifest),
        "task_id": manifest.root[:22],
        "task_version": int(version) if version.isdecimal() else 0,
        "task_args": manifest.env_kwargs,
        "solver": manifest.agent.name,
        "solver_args": manifest.agent.settings,
        "tags": ["treegrpo", manifest.track],
        "dataset": {
            "name": f"{dataset_id(manifest)} {manifest.split}",
            "samples": manifest.num_tasks,
            "sample_ids": indices,
            "shuffled": False,
        },
        "model": model_id(manifest),
        "model_args": {},
        "config": _config(manifest),
        "packages": manifest.versions,
        "metadata": {**provenance(bundle), "command": manifest.command},
        "scorers": [{"name": "success"}, {"name": "reward"}],
    }


def _config(manifest: Manifest) -> dict[str, Any]:
    budgets = manifest.budgets
    found: dict[str, Any] = {
        "limit": [manifest.first_index, manifest.first_index + manifest.num_tasks],
        "epochs": manifest.trials,
        "epochs_reducer": ["mean"],
        "fail_on_error": False,
        "turn_limit": budgets.max_turns,
    }
    if budgets.max_seconds is not None:
        found["time_limit"] = math.ceil(float(budgets.max_seconds))
    return found


def _results(bundle: Bundle, summary: EvaluationSummary) -> dict[str, Any]:
    return {
        "total_samples": len(bundle.episodes),
        "completed_samples": sum(episode.failure is None for episode in bundle.episodes),
        "scores": [
            _score("success", "accuracy", score(bundle, summary.success, "success")),
            _score("reward", "mean", score(bundle, summary.reward, "reward")),
        ],
    }


def _score(name: Literal["success", "reward"], metric: str, found: Score) -> dict[str, Any]:
    interval = found.interval
    values = {
        metric: interval.mean,
        "stderr": found.standard_error,
        "ci_lower": interval.low,
        "ci_upper": interval.high,
    }
    return {
        "name": name,
        "scorer": name,
        "reducer": "mean",
        "scored_samples": interval.num_tasks,
        "unscored_samples": 0,
        "metrics": {
            key: {"name": key, "value": value} for key, value in values.items() if value is not None
        },
        "metadata": {"interval": interval.method, "unit": "task"},
    }


def _samples(bundle: Bundle) -> Iterator[dict[str, Any]]:
    for episode in bundle.episodes:
        yield sample(bundle, episode)


def sample(bundle: Bundle, episode: EpisodeRecord) -> dict[str, Any]:
    """Return the sample of an episode."""
    manifest, said = bundle.manifest, transcript(bundle, episode)
    name = model_id(manifest)
    key = f"{episode.index}.{episode.trial}"
    messages = [_message(f"{key}.{n}", one, name) for n, one in enumerate(said)]
    usage = _usage(episode)
    components = {key: float(value) for key, value in episode.reward_components.items()}
    return {
        "id": episode.index,
        "epoch": episode.trial + 1,
        "uuid": f"{manifest.digest[:16]}-{episode.index}-{episode.trial}",
        "input": said[0].text if said else "",
        # Answers are not in a bundle.
        "target": "",
        "messages": messages,
        "output": _output(messages, name),
        "scores": {
            "success": {"value": float(episode.success)},
            "reward": {"value": float(episode.reward), "metadata": components},
        },
        "metadata": facts(episode),
        "model_usage": {} if usage is None else {name: usage},
        "total_time": float(episode.wall_seconds),
        "turn_count": episode.turns,
        "error": _error(episode),
        "limit": _limit(manifest, episode),
    }


def _message(key: str, said: Said, model: str) -> dict[str, Any]:
    found: dict[str, Any] = {"id": key, "role": said.role, "content": said.text}
    if said.cut:
        found["metadata"] = {"cut": True}
    if said.role == "assistant":
        found |= {"source": "generate", "model": model}
    if said.calls:
        found["tool_calls"] = [
            {"id": call.id, "function": call.name, "arguments": call.arguments}
            for call in said.calls
        ]
    if said.role == "tool":
        # One observation answers all calls of a turn; here a message answers one.
        found["tool_call_id"] = said.call_ids[0]
    return found


def _output(messages: list[dict[str, Any]], model: str) -> dict[str, Any]:
    # A bundle does not say why the model stopped.
    last = next((one for one in reversed(messages) if one["role"] == "assistant"), None)
    choices = [] if last is None else [{"message": last, "stop_reason": UNKNOWN}]
    return {"model": model, "choices": choices}


def _usage(episode: EpisodeRecord) -> dict[str, Any] | None:
    tokens = episode.tokens
    if tokens.input is None or tokens.output is None:
        return None  # a missing count would read as zero
    return {
        "input_tokens": tokens.input - (tokens.cached or 0),
        "output_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "input_tokens_cache_read": tokens.cached,
        "reasoning_tokens": tokens.reasoning,
        "total_cost": None if episode.dollars is None else float(episode.dollars),
    }


def _total_usage(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Return the sum over all episodes; what one of them has not counted is in no sum."""
    found = [usage for episode in bundle.episodes if (usage := _usage(episode)) is not None]
    if len(found) != len(bundle.episodes):
        return {}
    totals: dict[str, Any] = {}
    for kind in found[0]:
        values = [usage[kind] for usage in found]
        totals[kind] = None if None in values else sum(values)
    return {model_id(bundle.manifest): totals}


def _error(episode: EpisodeRecord) -> dict[str, str] | None:
    if episode.failure is None:
        return None
    message = f"{episode.failure}: {episode.failure_detail}"
    return {"message": message, "traceback": "", "traceback_ansi": ""}


def _limit(manifest: Manifest, episode: EpisodeRecord) -> dict[str, Any] | None:
    kind = _LIMITS.get(episode.end_reason or "")
    if kind is None or episode.failure is not None:
        return None
    budgets = manifest.budgets
    value = budgets.max_turns if kind == "turn" else float(budgets.max_seconds or 0)
    return {"type": kind, "limit": value, "reason": episode.end_reason}
