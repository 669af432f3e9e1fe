"""SQL-v0 is frozen: its tasks, its words and whole episodes have the bytes they always had."""

from typing import Any

import pytest

from treegrpo.envs import make
from treegrpo.envs.digest import digest
from treegrpo.envs.suite.sql import SQLEnv, vocabulary
from treegrpo.envs.suite.sql.tasks import Horizon

TASKS = {
    ("short", "train"): "b2c607e67dbc7debfb578145eb10a4f6641b3b0e857d925df861c22044f69845",
    ("short", "test"): "d74c6946c24db8566c08a264b50d2ac459a51d8775c50a7e9b74fbd0a17700fb",
    ("long", "train"): "76505b7ba2e74f8d778bc510f49707d1e1a5f2d49ca99e93f0de796d32e5d5d5",
    ("long", "test"): "771cf3cd78938eb323d3b501bf492b6cfb38a187a8990f1ec18d89cd09ffdbb6",
}
EPISODES = {
    "short": "7ef8271da37503c59e2c8c5c2d720a00ba8a49bf30ecd4e1805fe15e5646947d",
    "long": "8df3276cb9e537c665dfbd4dd9c6bf0421cb83e30b3db8b2774194e686af7477",
}
WORDS: dict[Horizon, str] = {
    "short": "952166d57693563001955431b4f66d400644963b9f9dfef5d4bc4bae4608510d",
    "long": "43dbb0e35ab62fc6d3bd363464c4531c7d97aa1456636946338fe03a456b6dd7",
}


@pytest.mark.parametrize(("horizon", "split"), TASKS)
def test_the_first_sixty_tasks(horizon: str, split: str) -> None:
    tasks = SQLEnv(horizon=horizon).tasks(split)[:60]
    assert digest(tasks) == TASKS[horizon, split]


@pytest.mark.parametrize("horizon", EPISODES)
def test_observations_rewards_and_state_hashes_of_thirty_episodes(horizon: str) -> None:
    env = make("treegrpo/SQL-v0", horizon=horizon)
    core = env.unwrapped
    assert isinstance(core, SQLEnv)
    seen: list[Any] = [core.tool_schemas()]
    for index in range(30):
        seen.append(env.reset(seed=index, options={"split": "test", "index": index}))
        while not core.episode.ended:
            # A write that changes nothing opens every third episode: its reply is frozen, too.
            is_first = core.episode.turns == 0 and index % 3 == 0
            table = core.state.database.tables()[0]
            idle = core.encode_call("query", sql=f"DELETE FROM {table} WHERE 0 = 1")
            seen += [env.step(idle if is_first else core.oracle()), core.state_hash()]
    assert digest(seen) == EPISODES[horizon]


@pytest.mark.parametrize("horizon", WORDS)
def test_the_vocabulary(horizon: Horizon) -> None:
    assert digest(sorted(vocabulary(horizon))) == WORDS[horizon]
