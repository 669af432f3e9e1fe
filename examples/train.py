"""Train any Hugging Face model on an environment: python examples/train.py MODEL OUT."""

import sys

from treegrpo import Trainer

trainer = Trainer(
    model=sys.argv[1], env="treegrpo/SearchQA-v0", out=sys.argv[2], lr=4e-4, questions=4
)
trainer.run(steps=2, on_step=lambda report: print(report.step, report.metrics["success_rate"]))
