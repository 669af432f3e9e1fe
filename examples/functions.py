"""An environment from two functions and rows. python examples/functions.py runs its laws."""

from treegrpo.envs import Task, check_env_laws
from treegrpo.envs.functional import make_tool_env

STOCK = {"pear": 4, "plum": 7, "fig": 12, "date": 30, "lime": 9, "kiwi": 15}
ROWS = [
    {"question": f"What do 3 {one}s and 2 {two}s cost together?", "answer": 3 * a + 2 * b}
    for one, a in STOCK.items()
    for two, b in STOCK.items()
    if one != two
]


def price(fruit: str) -> str:
    """Look up the price of one piece of fruit."""
    return str(STOCK.get(fruit, "Not sold here."))


def note(line: str, state: dict[str, list[str]]) -> str:
    """Write a line down; every line so far comes back."""
    state.setdefault("lines", []).append(line[:80])
    return "; ".join(state["lines"])


def reward(answer: str | None, task: Task) -> float:
    return float(answer is not None and answer.strip() == str(task.answer))


def expert(task: Task, turn: int) -> dict[str, object]:
    first, second = (word.rstrip("s") for word in task.question.split()[3:7:3])
    if turn < 2:
        return {"name": "price", "arguments": {"fruit": (first, second)[turn]}}
    return {"name": "answer", "arguments": {"text": str(task.answer)}}


Fruit = make_tool_env(
    "examples/Fruit-v0", tools=[price, note], tasks=ROWS, reward=reward, oracle=expert
)

if __name__ == "__main__":
    for report in check_env_laws("examples/Fruit-v0"):
        print(report.law)
