"""A whole environment: forkable, checked, trainable. python examples/guess.py runs its laws."""

import numpy as np

from treegrpo.envs import Task, ToolEnv, check_env_laws, register, tool


class GuessEnv(ToolEnv):
    """Find a number between 0 and 99; each wrong guess says higher or lower."""

    def make_task(self, rng: np.random.Generator, difficulty: int) -> Task:
        number = int(rng.integers(100))
        return Task(f"guess-{number}", "Guess my number between 0 and 99.", number)

    def setup(self, task: Task, rng: np.random.Generator) -> dict[str, int]:
        return {"low": 0, "high": 99, "last": -1}

    @tool
    def guess(self, number: int) -> str:
        """Name a number between 0 and 99."""
        self.state["last"] = number
        if number == self.task.answer:
            self.finish("found")
            return "Right."
        side = "low" if number < self.task.answer else "high"
        self.state[side] = number + 1 if side == "low" else number - 1
        return "Higher." if side == "low" else "Lower."

    def score(self, state: dict[str, int], transcript: object, task: Task) -> float:
        return float(state["last"] == task.answer)

    def oracle(self) -> str:
        return self.encode_call("guess", number=(self.state["low"] + self.state["high"]) // 2)


register("examples/Guess-v0", f"{__name__}:GuessEnv")

if __name__ == "__main__":
    for report in check_env_laws("examples/Guess-v0"):
        print(report.law)
