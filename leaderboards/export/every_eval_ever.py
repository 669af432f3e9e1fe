"""A bundle as every-eval-ever records: one file of results, one line per episode beside it.

    OUT/data/DATASET/DEVELOPER/MODEL/UUID.json
    OUT/data/DATASET/DEVELOPER/MODEL/UUID_samples.jsonl

The folders are those of the format's own repository, so that OUT can be copied over it. The
UUID comes from the bundle's digest: the same bundle gives the same bytes. Two results, success
and reward; the lines belong to success and hold the reward beside it.

Format: evaleval/every_eval_ever, schema version 0.3.0. It has no field for costs, failures and
digests: they stand in `details`, `additional_details` and `metadata`, as texts.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from treegrpo.leaderboards.bundle import Bundle
from treegrpo.leaderboards.chain import spelled
from treegrpo.leaderboards.export.content import (
    CONFIDENCE,
    UNKNOWN,
    Said,
    Score,
    dataset_id,
    facts,
    model_id,
    provenance,
    score,
    text_of,
    transcript,
)
from treegrpo.leaderboards.files import write_file
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest, Tokens
from treegrpo.leaderboards.summary import EvaluationSummary, summarise

NAME = "every-eval-ever"
SCHEMA_VERSION = "0.3.0"
MAX_FOLDER_CHARS = 100
_RESERVED = re.compile(r"(data|con|prn|aux|nul|(com|lpt)[1-9])(\..*)?", re.IGNORECASE)


def write(bundle: Bundle, out: Path) -> None:
    """Write the folder `out` with both files."""
    manifest = bundle.manifest
    developer, _, model = model_id(manifest).partition("/")
    parts = ["data", *(folder_name(part) for part in (dataset_id(manifest), developer, model))]
    folder, name = out.joinpath(*parts), str(_uuid(manifest))
    folder.mkdir(parents=True)
    samples = folder / f"{name}_samples.jsonl"
    checksum = hashlib.sha256()
    with samples.open("wb") as file:
        for row in _rows(bundle):
            line = spelled(row)
            checksum.update(line)
            file.write(line)
    record = aggregate(bundle) | {
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": "/".join([*parts, samples.name]),
            "hash_algorithm": "sha256",
            "checksum": checksum.hexdigest(),
            "total_rows": len(bundle.episodes),
        }
    }
    write_file(folder / f"{name}.json", spelled(record, indent=2))


def folder_name(text: str) -> str:
    """Return a name that is one harmless folder on every system."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:MAX_FOLDER_CHARS]
    name = re.sub(r"\.+$|^\.+", "_", name)
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def aggregate(bundle: Bundle) -> dict[str, Any]:
    """Return the record of results, without the reference to the lines."""
    manifest, summary = bundle.manifest, summarise(bundle)
    details = _details(summary, len(bundle.episodes))
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": _evaluation_id(manifest),
        "evaluation_timestamp": manifest.created,
        "retrieved_timestamp": str(_epoch(manifest)),
        "source_metadata": {
            "source_name": "treegrpo bundle",
            "source_type": "evaluation_run",
            # A bundle does not say who made it, nor how he stands to the model's developer.
            "source_organization_name": UNKNOWN,
            "evaluator_relationship": "other",
            "additional_details": provenance(bundle),
        },
        "eval_library": {
            "name": "treegrpo",
            "version": manifest.versions.get("treegrpo", UNKNOWN),
            "additional_details": dict(manifest.versions),
        },
        "model_info": _model(manifest),
        "evaluation_results": [
            _result(manifest, "success", score(bundle, summary.success, "success"), details)
            | {"generation_config": _generation(manifest)},
            _result(manifest, "reward", score(bundle, summary.reward, "reward"), {}),
        ],
    }


def _uuid(manifest: Manifest) -> uuid.UUID:
    return uuid.UUID(bytes=bytes.fromhex(manifest.digest)[:16], version=4)


def _epoch(manifest: Manifest) -> int:
    return int(datetime.fromisoformat(manifest.created).timestamp())


def _evaluation_id(manifest: Manifest) -> str:
    name = f"{dataset_id(manifest)}/{model_id(manifest)}"
    return f"{name}/{_epoch(manifest)}-{manifest.digest[:12]}"


def _evaluation_name(manifest: Manifest) -> str:
    return f"{dataset_id(manifest)}.{manifest.split}"


def _result_id(manifest: Manifest, metric: str) -> str:
    return f"{_evaluation_id(manifest)}#{metric}"


def _model(manifest: Manifest) -> dict[str, Any]:
    agent = manifest.agent
    name = model_id(manifest)
    details = {"deployment_type": UNKNOWN, "model_availability": UNKNOWN}
    details |= {"agent": agent.name, "agent_digest": agent.digest}
    found: dict[str, Any] = {
        "name": agent.model or agent.name,
        "id": name,
        "developer": name.partition("/")[0],
        "additional_details": details,
    }
    return found if agent.provider is None else found | {"inference_platform": agent.provider}


def _result(
    manifest: Manifest, metric: str, found: Score, details: dict[str, str]
) -> dict[str, Any]:
    return {
        "evaluation_result_id": _result_id(manifest, metric),
        "evaluation_name": _evaluation_name(manifest),
        "evaluation_timestamp": manifest.created,
        "source_data": {
            "dataset_name": dataset_id(manifest),
            "source_type": "other",
            "additional_details": {
                "split": manifest.split,
                "samples_number": str(manifest.num_tasks),
                "env_kwargs": text_of(manifest.env_kwargs),
            },
        },
        "metric_config": _METRICS[metric],
        "score_details": {
            "score": found.interval.mean,
            "details": details,
            "uncertainty": _uncertainty(found),
        },
    }


_METRICS: dict[str, dict[str, Any]] = {
    "success": {
        "evaluation_description": "Share of episodes that the environment counts as solved",
        "metric_id": "success_rate",
        "metric_name": "success rate",
        "metric_kind": "pass_rate",
        "metric_unit": "proportion",
        "lower_is_better": False,
        "score_type": "continuous",
        "min_score": 0.0,
        "max_score": 1.0,
    },
    "reward": {
        "evaluation_description": "Mean reward of an episode, as the environment defines it",
        "metric_id": "treegrpo.reward",
        "metric_name": "mean reward",
        "metric_kind": "reward",
        "metric_unit": "points",
        "lower_is_better": False,
        "score_type": "continuous",
        # The format spells a metric without bounds like this.
        "min_score": "-Infinity",
        "max_score": "Infinity",
    },
}


def _uncertainty(found: Score) -> dict[str, Any]:
    interval = found.interval
    values: dict[str, Any] = {"num_samples": interval.num_tasks}
    if found.standard_error is not None:
        values["standard_error"] = {"value": found.standard_error, "method": "clustered by task"}
    if interval.low is not None and interval.high is not None:
        values["confidence_interval"] = {
            "lower": interval.low,
            "upper": interval.high,
            "confidence_level": CONFIDENCE,
            "method": f"{interval.method}, clustered by task",
        }
    return values


def _details(summary: EvaluationSummary, episodes: int) -> dict[str, str]:
    values = {
        "episodes": episodes,
        "trials": summary.trials,
        "mean_turns": summary.turns,
        "mean_tool_calls": summary.tool_calls,
        "sampled_tokens": summary.sampled_tokens,
        "end_reasons": summary.end_reasons,
        "failures": summary.failures,
    }
    return {name: text_of(value) for name, value in values.items() if value is not None}


def _generation(manifest: Manifest) -> dict[str, Any]:
    settings, budgets = manifest.agent.settings, manifest.budgets
    limits = budgets.model_dump(mode="json", exclude_none=True)
    args: dict[str, Any] = {
        "execution_command": manifest.command,
        "agentic_eval_config": {
            "additional_details": {name: text_of(value) for name, value in limits.items()}
        },
    }
    for name in ("temperature", "top_p", "top_k"):
        if type(settings.get(name)) in (int, float):
            args[name] = settings[name]
    if budgets.max_seconds is not None:
        args["eval_limits"] = {"time_limit": math.ceil(float(budgets.max_seconds))}
    return {
        "generation_args": args,
        "additional_details": {name: text_of(value) for name, value in settings.items()},
    }


def _rows(bundle: Bundle) -> Iterator[dict[str, Any]]:
    for episode in bundle.episodes:
        yield sample(bundle, episode)


def sample(bundle: Bundle, episode: EpisodeRecord) -> dict[str, Any]:
    """Return the line of an episode."""
    manifest, said = bundle.manifest, transcript(bundle, episode)
    # A line needs a message, also where the environment could not even be reset.
    messages = [_message(n, one) for n, one in enumerate(said)] or [
        {"turn_idx": 0, "role": "user", "content": None}
    ]
    prompt = said[0].text if said else ""
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": _evaluation_id(manifest),
        "model_id": model_id(manifest),
        "evaluation_name": _evaluation_name(manifest),
        "evaluation_result_id": _result_id(manifest, "success"),
        "sample_id": episode.task_id or f"task {episode.index}",
        "sample_hash": _sample_hash(prompt) if said and not said[0].cut else None,
        "interaction_type": "agentic",
        "input": {"raw": prompt, "reference": []},
        "output": None,
        "messages": messages,
        "answer_attribution": [],
        "evaluation": {
            "score": float(episode.success),
            "is_correct": episode.success,
            "num_turns": len(messages),
            "tool_calls_count": episode.tool_calls,
        },
        "token_usage": _usage(episode.tokens),
        "performance": {"latency_ms": float(episode.wall_seconds) * 1000},
        "error": _error(episode),
        "metadata": facts(episode),
    }


def _message(number: int, said: Said) -> dict[str, Any]:
    found: dict[str, Any] = {"turn_idx": number, "role": said.role, "content": said.text}
    if said.calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "name": call.name,
                "arguments": {name: text_of(value) for name, value in call.arguments.items()},
            }
            for call in said.calls
        ]
    if said.call_ids:
        found["tool_call_id"] = list(said.call_ids)
    return found


def _sample_hash(prompt: str) -> str:
    """Return the format's own hash of a question, which lets rows of other sources be joined."""
    text = json.dumps({"raw": prompt, "reference": []}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _usage(tokens: Tokens) -> dict[str, int | None] | None:
    if tokens.input is None or tokens.output is None:
        return None  # the format takes all three counts or none; null is not zero
    return {
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "input_tokens_cache_read": tokens.cached,
        "reasoning_tokens": tokens.reasoning,
    }


def _error(episode: EpisodeRecord) -> str | None:
    return None if episode.failure is None else f"{episode.failure}: {episode.failure_detail}"
