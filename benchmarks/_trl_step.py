"""How long TRL's GRPOTrainer takes for forward and backward over given trajectories.

    /path/to/trl/python benchmarks/_trl_step.py MODEL_FOLDER

Runs in an environment of its own (pip install trl==1.16.0); nothing of ours is imported.
Each line read is a JSON request, {"rows": [...], "max_tokens": N, "runs": N}, each line written
one answer, {"seconds": [...], "loss": ..., "grad_norm": ...}; the first line written says which
versions answer. A row has "prompt", "completion", "trained" (1 where sampled), "old_logps" (as
long as the completion) and "advantage".

The trainer generates nothing and calls no reward: it gets the batches that it would have made,
as many rows at a time as fit into `max_tokens` with padding, and its own `training_step` runs
over them. The loss is "dapo", a mean over all trained tokens, clipped at 0.2, without KL.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

Batch = dict[str, torch.Tensor]


def main() -> None:
    """Answer requests until the input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not mix with the answers
    with tempfile.TemporaryDirectory() as scratch:
        trainer = build_trainer(sys.argv[1], scratch)
        names = ("trl", "transformers", "torch")
        hello = {"versions": {name: version(name) for name in names}}
        print(json.dumps(hello), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(trainer, json.loads(line))), file=answers, flush=True)


def build_trainer(folder: str, scratch: str) -> Any:
    """Return a GRPOTrainer that trains on the inputs it is given."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = GRPOConfig(
        output_dir=scratch,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        loss_type="dapo",
        epsilon=0.2,
        beta=0.0,
        temperature=1.0,
        disable_dropout=True,
        report_to=[],
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=16,
    )
    trainer: Any = GRPOTrainer(
        model=model,
        reward_funcs=no_reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=any_tokenizer(),
    )
    trainer._prepare_inputs = lambda batch: batch
    return trainer


def no_reward(completions: list[Any], **kwargs: Any) -> list[float]:
    """Stand where a reward must; the advantages are given."""
    del kwargs
    return [0.0] * len(completions)


def any_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer to construct with: nothing is tokenized."""
    core = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "b": 2}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<pad>")


def answer(trainer: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of each run over all rows, the loss, and the gradient's norm."""
    batches = list(batched(request["rows"], request["max_tokens"]))
    # The loss is divided by the tokens of the whole update, over as many accumulation steps.
    trainer.current_gradient_accumulation_steps = len(batches)
    trainer.args.steps_per_generation = len(batches)
    trainer.accelerator.gradient_accumulation_steps = 1
    seconds: list[float] = []
    loss = torch.zeros(())
    for _ in range(request["runs"]):
        trainer.model.zero_grad(set_to_none=True)
        started = time.perf_counter()
        losses = [trainer.training_step(trainer.model, batch, None) for batch in batches]
        seconds.append(time.perf_counter() - started)
        loss = torch.stack(losses).sum()
    grads = [w.grad for w in trainer.model.parameters() if w.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))
    return {"seconds": seconds, "loss": float(loss), "grad_norm": float(norm)}


def batched(rows: list[dict[str, Any]], max_tokens: int) -> Iterator[Batch]:
    """Yield the rows, longest first, as the trainer's own batches: prompts left-padded."""
    total = torch.tensor(float(sum(sum(row["trained"]) for row in rows)))
    left = sorted(rows, key=lambda row: -len(row["prompt"]) - len(row["completion"]))
    while left:
        count = max(1, max_tokens // (len(left[0]["prompt"]) + len(left[0]["completion"])))
        yield {**stacked(left[:count]), "num_items_in_batch": total}
        left = left[count:]


def stacked(rows: list[dict[str, Any]]) -> Batch:
    """Return rows as tensors."""
    prompts = [torch.tensor(row["prompt"]) for row in rows]
    completions = [torch.tensor(row["completion"]) for row in rows]
    old_logps = [torch.tensor(row["old_logps"]) for row in rows]
    trained = [torch.tensor(row["trained"]) for row in rows]
    return {
        "prompt_ids": padded(prompts, "left"),
        "prompt_mask": padded([torch.ones_like(ids) for ids in prompts], "left"),
        "completion_ids": padded(completions, "right"),
        "completion_mask": padded([torch.ones_like(ids) for ids in completions], "right"),
        "tool_mask": padded(trained, "right"),
        "old_per_token_logps": padded(old_logps, "right"),
        "advantages": torch.tensor([row["advantage"] for row in rows]),
    }


def padded(tensors: list[torch.Tensor], side: str) -> torch.Tensor:
    """Return the vectors as rows, filled up with 0."""
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_side=side)


if __name__ == "__main__":
    main()
