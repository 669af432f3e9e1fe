"""Train any Hugging Face model on an environment: python examples/train.py MODEL OUT."""

import sys

from treegrpo import Trainer

trainer = Trainer(
    model=sys.argv[1], env="treegrpo/SearchQA-v0", out=sys.argv[2], lr=4e-4, steps=2, questions=4
)
rows = trainer.run(on_step=lambda report: print(report.step, report.metrics["success_rate"]))
