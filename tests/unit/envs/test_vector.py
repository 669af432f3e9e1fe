"""Vectors of environments, in this process and in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest
from gymnasium.vector import AutoresetMode

from tests.unit.envs import toys
from treegrpo.envs import make
from treegrpo.envs.errors import UnknownEnv
from treegrpo.envs.vector import PROCESS_KWARGS, VECTOR_KWARGS, Vector, make_vec

ID = "tests/VectorSum-v0"
ADD, ROLL, ANSWER = (
    toys.Sum().encode_call(name, **arguments)
    for name, arguments in (("add", {"number": 4}), ("roll", {}), ("answer", {}))
)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register(ID, entry_point="tests.unit.envs.toys:Sum")
    yield
    del gymnasium.registry[ID]


@pytest.fixture(params=["ours", "sync", "async"])
def vector(request: pytest.FixtureRequest) -> Iterator[Vector]:
    """Three vectors of two: ours in processes, and Gymnasium's own call both ways."""
    if request.param == "ours":
        made: Any = make_vec(ID, 2, parallel=True)
    else:
        settings = PROCESS_KWARGS if request.param == "async" else VECTOR_KWARGS
        mode = request.param
        made = gymnasium.make_vec(ID, 2, vectorization_mode=mode, vector_kwargs=settings)
    yield made
    made.close()


def alone(seed: int, *actions: str) -> list[Any]:
    """Return what one environment gives for the actions."""
    env = make(ID)
    return [env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)]


def seeds(*each: int | None) -> Any:
    """Return a seed for each environment; Gymnasium takes them, and declares one."""
    return list(each)


def test_each_is_what_it_is_alone(vector: Vector) -> None:
    assert vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    seen = [vector.reset(seed=seeds(3, 4))[0]]
    seen += [vector.step(actions)[0] for actions in ((ADD, ROLL), (ROLL, ROLL), (ROLL, ADD))]
    assert [texts[0] for texts in seen] == alone(3, ADD, ROLL, ROLL)
    assert [texts[1] for texts in seen] == alone(4, ROLL, ROLL, ADD)


def test_what_has_ended_stays_ended() -> None:
    vector = make_vec(ID, 2)
    vector.reset(seed=seeds(3, 4))
    _, _, terminated, truncated, info = vector.step((ANSWER, ADD))
    assert (terminated.tolist(), truncated.tolist()) == ([True, False], [False, False])
    assert info["end_reason"][0] == "answered"
    again, _ = vector.reset(seed=seeds(5, None), options={"reset_mask": terminated})
    assert again[0] == alone(5)[0]
    assert vector.step((ADD, ADD))[0] == ("The total is 4.", "The total is 8.")
    vector.close()


def test_the_batched_space_samples_actions() -> None:
    vector = make_vec(ID, 3)
    vector.action_space.seed(0)
    texts = [text for _ in range(20) for text in vector.action_space.sample()]
    assert len(texts) == 60 and sum("<tool_call>" in text for text in texts) > 30
    vector.close()


def test_an_unknown_id_is_told_as_everywhere() -> None:
    with pytest.raises(UnknownEnv, match="Did you mean"):
        make_vec("treegrpo/SQK-v0", 2)
