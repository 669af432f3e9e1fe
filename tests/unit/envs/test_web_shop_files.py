"""WebShop's public files: what is read of them, what a wrong one is told, how they are scored."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from treegrpo.envs.errors import DataFileError, UnknownOption
from treegrpo.envs.suite.web_shop import files as web_shop_files
from treegrpo.envs.suite.web_shop.catalogue import Product, Shop
from treegrpo.envs.suite.web_shop.env import WebShopEnv
from treegrpo.envs.suite.web_shop.file_goals import FileGoal, file_share
from treegrpo.envs.suite.web_shop.files import FileShop, load_shop, price_in_cents
from treegrpo.envs.suite.web_shop.goals import Line, Order

FIXTURES = Path(__file__).parents[2] / "fixtures" / "web_shop"
ITEMS, ATTRIBUTES = FIXTURES / "items_shuffle.json", FIXTURES / "items_ins_v2.json"
HUMAN, MERGED = FIXTURES / "items_human_ins.json", FIXTURES / "items_merged.json"
THREE = {"data": str(ITEMS), "attributes": str(ATTRIBUTES), "instructions": str(HUMAN)}


@pytest.fixture(scope="module")
def three() -> FileShop:
    return load_shop(ITEMS, attributes=ATTRIBUTES, instructions=HUMAN)


def test_products_are_read(three: FileShop) -> None:
    jacket = three.shop.by_id["B0AAAA0001"]
    assert jacket.title == "Halden Trail Rain Jacket for Men with Hood"
    assert (jacket.kind, jacket.price) == ("men jackets", 4250)
    assert jacket.categories == ("Clothing", "Men", "Jackets")
    assert jacket.attributes == ("machine wash", "waterproof", "rain jacket")
    sizes = [value.text for value in jacket.options["size"]]
    assert list(jacket.options) == ["color", "size"] and sizes == ["small", "medium", "x-large"]
    bars = three.shop.by_id["B0BBBB0001"]
    assert [value.text for value in bars.options["flavor name"]] == ["apple | cinnamon", "plain"]
    lamp = three.shop.by_id["B0CCCC0001"]
    assert (lamp.price, lamp.options) == (10_000, {})
    assert lamp.features == ("Dimmable light with a steel arm",)
    assert three.shop.by_id["B0AAAA0002"].price == 8400


def test_instructions_become_goals(three: FileShop) -> None:
    assert [goal.id for goal in three.goals] == [
        "B0AAAA0001-0",
        "B0AAAA0001-1",
        "B0AAAA0002-0",
        "B0BBBB0001-0",
        "B0CCCC0001-0",
    ]
    assert three.skipped == 3  # a repeated asin, no attributes, a product that is not there
    goal = three.goals[0]
    assert goal.attributes == ("waterproof",) and goal.options == ("moss green", "x-large")
    assert goal.max_price is not None and goal.max_price > 4250
    assert goal.text == (
        "i need a waterproof men's jacket in moss green, size x-large, and price lower than "
        f"{goal.max_price / 100:.2f} dollars"
    )


def test_the_same_files_give_the_same_goals(three: FileShop, tmp_path: Path) -> None:
    again = load_shop(ITEMS, attributes=ATTRIBUTES, instructions=HUMAN)
    assert (again.goals, again.digest) == (three.goals, three.digest)
    packed = tmp_path / "items.json.gz"
    packed.write_bytes(gzip.compress(ITEMS.read_bytes()))
    unpacked = load_shop(packed, attributes=ATTRIBUTES, instructions=HUMAN)
    assert unpacked.goals == three.goals and unpacked.digest != three.digest


def test_a_file_may_carry_everything() -> None:
    merged = load_shop(MERGED)
    assert [goal.id for goal in merged.goals] == ["B0AAAA0001-0", "B0AAAA0001-1", "B0BBBB0001-0"]
    assert merged.goals[2].options == ("plain",)
    assert merged.shop.by_id["B0AAAA0002"].price == 8400
    assert merged.shop.by_id["B0BBBB0001"].attributes[0] == "gluten free"


def test_attributes_may_bring_instructions() -> None:
    made = load_shop(ITEMS, attributes=ATTRIBUTES)
    assert [goal.id for goal in made.goals] == ["B0AAAA0001-0", "B0CCCC0001-0"]
    assert made.goals[0].attributes == ("waterproof",)


@pytest.mark.parametrize("files", [THREE, {"data": str(MERGED)}])
def test_the_oracle_solves_every_instruction(files: dict[str, str]) -> None:
    env = WebShopEnv(**files)
    ids: list[str] = []
    for split in env.splits:
        for index in range(len(env.tasks(split))):
            env.reset(seed=0, options={"split": split, "index": index})
            while not env.episode.ended:
                env.step(env.oracle())
            assert env.episode.episode_return == 1.0, env.messages
            assert not any("failed" in message["content"] for message in env.messages)
            ids.append(env.task.id)
    assert len(ids) == len(set(ids)) == (5 if files is THREE else 3)


def test_a_fork_of_a_visit_shares_the_shop() -> None:
    env = WebShopEnv(**THREE)
    env.reset(seed=0, options={"index": 0})
    env.step(env.oracle())
    assert len(env.snapshot().to_bytes()) < 20_000
    assert env.fork()._site.shop is env._site.shop


def test_a_split_without_an_instruction_says_so(tmp_path: Path) -> None:
    items = json.loads(MERGED.read_text())[:1]
    items[0]["instructions"] = items[0]["instructions"][:1]
    path = tmp_path / "one.json"
    path.write_text(json.dumps(items))
    env = WebShopEnv(data=str(path))
    empty = [split for split in env.splits if not env.tasks(split)]
    assert len(empty) == 2
    with pytest.raises(UnknownOption, match="the split has none"):
        env.reset(seed=0, options={"split": empty[0]})


PRODUCT: dict[str, Any] = json.loads(MERGED.read_text())[2]


def wrong(**changes: object) -> str:
    """Return a file whose second product, on line 3, is wrong."""
    bad = {name: value for name, value in {**PRODUCT, **changes}.items() if value is not ...}
    return f"[\n{json.dumps({**PRODUCT, 'asin': 'B0OTHER'})},\n{json.dumps(bad)}\n]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            wrong(asin=...),
            "entry 2 (line 3): field 'asin' is missing; found an object with the fields",
        ),
        (
            wrong(asin=7),
            "field 'asin' is wrong: Input should be a valid string; found the number 7",
        ),
        (wrong(Title=...), "(line 3): field 'name' is missing"),
        (wrong(pricing={"low": 1}), "(line 3): field 'pricing"),
        (wrong(pricing=[float("nan")]), "(line 3): field 'pricing"),
        (wrong(Attributes="soft"), "field 'Attributes' is wrong: Input should be a valid list"),
        (wrong(Attributes=["a", 3]), "field 'Attributes.1' is wrong"),
        (wrong(customization_options=["red"]), "field 'customization_options' is wrong"),
        (
            wrong(customization_options={"Color": [{"image": "x"}]}),
            "(line 3): field 'customization_options.Color.0.value' is missing",
        ),
        (wrong(instructions=[{"instruction": "x"}]), "'instructions.0.instruction_attributes'"),
        ('[\n3,\n"x"]', "entry 1 (line 2): expected an object, found the number 3"),
        ('[\n{"asin": "B0"', "line 2, column 14: not valid JSON (expecting ',' delimiter)"),
        (f"[{json.dumps(PRODUCT)}] 1", "not valid JSON (text after the end of the list)"),
        (f"[{json.dumps(PRODUCT)}", "not valid JSON (expecting ',' or ']')"),
        (json.dumps({"B0": PRODUCT}), "entry 'B0' (line 1): it is an object, products are a list"),
        ("[]", "it holds no product"),
        ("{3: 4}", "not valid JSON"),
        (" \n", "the file is empty"),
        ("nothing", "line 1, column 1: not valid JSON (it is neither a list nor an object)"),
        ("[" * 100_000, "line 1, column 2: not valid JSON (maximum recursion depth"),
        (json.dumps([{**PRODUCT, "instruction_text": None}]), "have no instruction with an attr"),
        (json.dumps([{**PRODUCT, "asin": "a b"}]), "it holds no product"),
    ],
)
def test_a_wrong_file_of_products_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "items.json"
    path.write_text(text)
    with pytest.raises(DataFileError) as caught:
        load_shop(path)
    assert str(caught.value).startswith(f"Reading products from '{path}'")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[\n\xff]", "line 2: not UTF-8 text (byte 0xff)"),
        (
            gzip.compress(MERGED.read_bytes(), mtime=0)[:-20],
            "the gzip data is cut short or damaged",
        ),
        (b"\x1f\x8bnot gzip", "the gzip data is cut short or damaged"),
        (b"", "the file is empty"),
    ],
)
def test_broken_bytes_are_told(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "items.json"
    path.write_bytes(data)
    with pytest.raises(DataFileError, match="Reading products from") as caught:
        load_shop(path)
    assert told in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(web_shop_files, "MAX_BYTES", 1024**2)
    text = b"[" + b" " * 1024**2 + b"]"
    path = tmp_path / "items.json"
    path.write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(DataFileError, match="it is longer than 1 MiB"):
        load_shop(path)


def test_a_path_that_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="there is no such file"):
        load_shop(tmp_path / "nowhere" / "items.json")
    with pytest.raises(DataFileError, match=r"Did you mean 'items_shuffle\.json'"):
        load_shop(FIXTURES / "items_shufle.json")
    with pytest.raises(DataFileError, match="this is a folder"):
        load_shop(FIXTURES)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("attributes", '{"B0": 3}', "entry 'B0' (line 1): expected an object, found the number 3"),
        (
            "attributes",
            '{\n"B0": {"attributes": 3}}',
            "entry 'B0' (line 2): field 'attributes' is wrong",
        ),
        ("attributes", "[{}]", "it is a list, this file is an object of asins"),
        (
            "instructions",
            '{"B0": {}}',
            "entry 'B0' (line 1): expected a list of instructions, found an empty object",
        ),
        (
            "instructions",
            '{"B0": [{"instruction": ""}]}',
            "entry 'B0' (line 1): field 'instruction' is wrong",
        ),
        ("instructions", '{"B0": [], }', "not valid JSON"),
    ],
)
def test_a_wrong_side_file_is_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = tmp_path / "side.json"
    path.write_text(text)
    with pytest.raises(DataFileError) as caught:
        load_shop(ITEMS, **{name: path})
    assert str(caught.value).startswith(f"Reading {name} from '{path}'")
    assert told in str(caught.value)


def test_swapped_files_are_told() -> None:
    with pytest.raises(DataFileError, match="Give it as attributes= or instructions="):
        load_shop(HUMAN)
    with pytest.raises(DataFileError, match="Give the list of products as data="):
        load_shop(ITEMS, instructions=ITEMS)


@pytest.mark.parametrize(
    ("pricing", "cents"),
    [
        ("$9.99", 999),
        ("$1,299.00", 129_900),
        ("$9.99$19.99", 1999),
        ([5.5, 7.25], 725),
        ([3.0], 300),
        ("", 10_000),
        ("free", 10_000),
        ("$" + "9" * 400, 10_000),
        (None, 10_000),
        ([], 10_000),
    ],
)
def test_prices(pricing: str | list[float] | None, cents: int) -> None:
    assert price_in_cents(pricing) == cents


def share(goal: FileGoal, shop: Shop, product: str, **options: str) -> float:
    return file_share(goal, Order((Line(product, tuple(options.items())),)), shop)


def test_the_score_is_webshops(three: FileShop) -> None:
    goal, shop = three.goals[0], three.shop
    assert share(goal, shop, "B0AAAA0001", color="moss green", size="x-large") == 1.0
    assert share(goal, shop, "B0AAAA0001", color="moss green", size="small") == 3 / 4
    assert share(goal, shop, "B0AAAA0001") == 2 / 4
    assert share(goal, shop, "B0AAAA0002", color="camel") == 0.0  # no attribute, too expensive
    # No word of the title in common: another type, so nothing counts.
    assert share(goal, shop, "B0BBBB0002") == 0.0


def test_the_type_weighs_the_share(three: FileShop) -> None:
    goal = three.goals[3]  # Ostra Oat Bars, 12 Pack, gluten free
    lamp = Product("L", "Pack of wires", "wires", 500, ("gluten free",), {})
    near = Product("N", "Kornly Bars", "snack bars", 500, ("free of gluten",), {})
    shop = Shop((*three.shop.products, lamp, near))
    assert share(goal, shop, "N") == 1.0 * 2 / 3
    few = Product("F", f"Bars {' '.join('abcdefghij')}", "wires", 500, ("gluten free",), {})
    assert share(goal, Shop((few,)), "F") == 0.5 * 2 / 3
    wide = replace(goal, title=f"bars {' '.join('qrstuvwxyzklmn')}")
    assert share(wide, Shop((few,)), "F") == pytest.approx(0.1 * 2 / 3)
    assert share(goal, shop, "L") == 0.5 * 2 / 3
