"""Fork a live database after an INSERT: the fork sees the row, its earlier sibling does not."""

from treegrpo.envs import fork, make

env = make("treegrpo/SQL-v0")
env.reset(seed=0, options={"difficulty": 3})


def query(world, sql: str) -> str:
    observation, *_ = world.step(world.unwrapped.encode_call("query", sql=sql))
    return observation


before = fork(env)
query(env, "INSERT INTO log VALUES (1, 'judo', 12)")
after = fork(env)
for name, world in (("forked before", before), ("forked after", after)):
    print(name, "the INSERT:", query(world, "SELECT COUNT(*) FROM log").split()[-1])
