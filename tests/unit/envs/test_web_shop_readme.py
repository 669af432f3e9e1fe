"""What WebShop's README says is what the environment does."""

import re
from pathlib import Path

from treegrpo.envs.suite import web_shop
from treegrpo.envs.suite.web_shop import files
from treegrpo.envs.suite.web_shop.catalogue import MAX_FOUND
from treegrpo.envs.suite.web_shop.env import PAGES, WebShopEnv
from treegrpo.envs.suite.web_shop.pages import FILTERS, ROWS
from treegrpo.envs.suite.web_shop.session import MAX_FIELD_CHARS, MAX_HISTORY, MAX_LINES
from treegrpo.envs.suite.web_shop.shops import FAMILIES, FAMILY_OF, SHOPS, build_shop
from treegrpo.envs.suite.web_shop.tasks import BUDGETS

README = (Path(web_shop.__file__).parent / "README.md").read_text(encoding="ascii")
FLAT = " ".join(README.split())


def test_the_transcript_is_a_true_episode() -> None:
    index = re.search(
        r"Test task (\d+), played by the oracle:\n\n```text\n(.*?)\n```", README, re.S
    )
    assert index is not None
    env = WebShopEnv(render_mode="ansi")
    env.reset(seed=0, options={"split": "test", "index": int(index[1])})
    while not env.episode.ended:
        env.step(env.oracle())
    assert index[2] == f"{env.render()}\n[reward] {env.episode.episode_return}"


def test_every_tool_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)\(", README, re.MULTILINE)
    assert listed == [schema["function"]["name"] for schema in WebShopEnv().tool_schemas()]
    assert all(f"`{name}`" in README for name in (*PAGES, *FILTERS))


def test_the_numbers_are_the_code_s() -> None:
    for level, budget in BUDGETS.items():
        assert re.search(rf"^\| {level} \|.*\| {budget} \|$", README, re.MULTILINE)
    sizes = ", ".join(str(len(SHOPS[split])) for split in ("train", "validation", "test"))
    assert f"shops of its own ({sizes})" in FLAT
    assert f"{len(build_shop(0).products)} products of {len(FAMILY_OF)} kinds" in FLAT
    first = sum(len(family.kinds) * len(family.attributes) for family in FAMILIES)
    assert f"only {first} instructions" in FLAT
    assert f"{ROWS} products a page" in FLAT and f"at most {MAX_HISTORY} back" in FLAT
    assert f"at most {MAX_FOUND} products, a cart holds {MAX_LINES}, a field {MAX_FIELD_CHARS}" in (
        FLAT
    )
    assert f"at most {files.MAX_BYTES // 1024**2} MiB each" in FLAT
    assert f"Turns are limited to {WebShopEnv().max_turns} at every level" in FLAT
