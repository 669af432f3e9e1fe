"""Fork a live database after an INSERT: the fork sees the row, its earlier sibling does not."""

import gymnasium

from treegrpo.envs import ToolEnv, fork, make

env = make("treegrpo/SQL-v0")
env.reset(seed=0, options={"difficulty": 3})


def query(world: gymnasium.Env[str, str], sql: str) -> str:
    core = world.unwrapped
    assert isinstance(core, ToolEnv)
    return world.step(core.encode_call("query", sql=sql))[0]


before = fork(env)
query(env, "INSERT INTO log VALUES (1, 'judo', 12)")
after = fork(env)
for name, world in (("forked before", before), ("forked after", after)):
    print(name, "the INSERT:", query(world, "SELECT COUNT(*) FROM log").split()[-1])
