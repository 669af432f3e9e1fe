"""WebShop's public files as a shop and its instructions, read from local paths.

    file                    holds                      read fields
    items_shuffle*.json     list of products           asin, name, query, product_category,
                                                       pricing, customization_options,
                                                       small_description, full_description
    items_ins_v2*.json      {asin: attributes}         attributes, instruction,
                                                       instruction_attributes
    items_human_ins.json    {asin: [instruction]}      instruction, instruction_attributes,
                                                       instruction_options

A file of products may also carry the rest itself, as WebShop's own cache and its mirrors do:
Title for name, Attributes, options, and `instructions` or instruction_text with
instruction_attributes and instruction_options. Other fields are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from treegrpo.envs.digest import digest, stable_seed
from treegrpo.envs.records import DataFile, Item, describe
from treegrpo.envs.suite.web_shop.catalogue import Product, Shop, Value
from treegrpo.envs.suite.web_shop.file_goals import FileGoal
from treegrpo.envs.suite.web_shop.schemas import (
    AttributeRecord,
    InstructionRecord,
    ProductRecord,
)

UNKNOWN_PRICE = 10_000
"""Cents: what WebShop takes where a product has no price."""
MAX_ASIN_CHARS = 10
MAX_BYTES = 512 * 1024**2
"""The most that a file may hold when unpacked: it is held in memory."""


@dataclass(frozen=True)
class FileShop:
    """What the files held; `digest` covers the bytes of all of them.

    `skipped` counts products of a repeated or broken asin and instructions without an
    attribute or of a product that is not there: WebShop leaves these out, too.
    """

    shop: Shop
    goals: tuple[FileGoal, ...]
    digest: str
    skipped: int = 0


def load_shop(
    products: Path, *, attributes: Path | None = None, instructions: Path | None = None
) -> FileShop:
    """Return the shop and the instructions of local files.

    Args:
        products: items_shuffle*.json, or one file that carries everything.
        attributes: items_ins_v2*.json; None if the products carry their attributes.
        instructions: items_human_ins.json; None if the products carry their instructions.

    Raises:
        DataFileError: a file is missing, empty or malformed; names file, line and field.
    """
    source = DataFile(Path(products), "products", MAX_BYTES)
    records, skipped = _read_products(source)
    digests = [source.digest()]
    told = {asin: record.told() for asin, record in records.items()}
    if attributes is not None:
        file = DataFile(Path(attributes), "attributes", MAX_BYTES)
        table = _read_attributes(file)
        digests.append(file.digest())
        for asin in [asin for asin in table if asin in records]:
            update = {"attributes": table[asin].attributes}
            records[asin] = records[asin].model_copy(update=update)
            told[asin] = told[asin] or table[asin].told()
    if instructions is not None:
        file = DataFile(Path(instructions), "instructions", MAX_BYTES)
        told = _read_instructions(file)
        digests.append(file.digest())
    goals, left_out = _goals(records, told)
    if not goals:
        raise source.error(
            f"its {len(records)} products have no instruction with an attribute",
            "Give instructions=<path of items_human_ins.json>, of the same products.",
        )
    shop = Shop([_product(record) for record in records.values()])
    return FileShop(shop, goals, digest(digests), skipped + left_out)


def _read_products(file: DataFile) -> tuple[dict[str, ProductRecord], int]:
    records: dict[str, ProductRecord] = {}
    skipped = 0
    for item in file.items():
        if isinstance(item.key, str):
            to_do = "Give it as attributes= or instructions=, and the list of products as data=."
            raise file.error("it is an object, products are a list", to_do, item.place)
        record = file.read(item, ProductRecord)
        asin = record.asin
        is_broken = asin == "nan" or not asin.isalnum() or len(asin) > MAX_ASIN_CHARS
        if asin in records or is_broken:
            skipped += 1
        else:
            records[asin] = record
    if not records:
        raise file.error("it holds no product", "Give a file with at least one product.")
    return records, skipped


def _read_attributes(file: DataFile) -> dict[str, AttributeRecord]:
    return {asin: file.read(item, AttributeRecord) for asin, item in _by_asin(file)}


def _read_instructions(file: DataFile) -> dict[str, list[InstructionRecord]]:
    told: dict[str, list[InstructionRecord]] = {}
    for asin, item in _by_asin(file):
        if not isinstance(item.value, list):
            found = f"expected a list of instructions, found {describe(item.value)}"
            raise file.error(found, "Correct the entry or leave it out.", item.place)
        told[asin] = [
            file.read(Item(asin, one, item.line), InstructionRecord)
            for one in cast("list[object]", item.value)
        ]
    return told


def _by_asin(file: DataFile) -> Iterator[tuple[str, Item]]:
    for item in file.items():
        if isinstance(item.key, int):
            found = "it is a list, this file is an object of asins"
            raise file.error(found, "Give the list of products as data=.", item.place)
        yield item.key, item


def _goals(
    records: dict[str, ProductRecord], told: dict[str, list[InstructionRecord]]
) -> tuple[tuple[FileGoal, ...], int]:
    """Return the goals, and how many instructions were left out."""
    goals: list[FileGoal] = []
    left_out = 0
    for asin, instructions in told.items():
        record = records.get(asin)
        for number, instruction in enumerate(instructions):
            if record is None or not instruction.instruction_attributes:
                left_out += 1
            else:
                goals.append(_goal(record, instruction, number))
    return tuple(goals), left_out


def _goal(record: ProductRecord, told: InstructionRecord, number: int) -> FileGoal:
    """Return a goal; its price limit, one of the next tens above, follows from its content."""
    text = " ".join(told.instruction.split()).strip(".")
    product = _product(record)
    above = [ten for ten in range(1_000, 100_000, 1_000) if ten > product.price][1:4]
    limit = above[stable_seed(record.asin, text) % len(above)] if above else None
    if limit is not None:
        text = f"{text}, and price lower than {limit / 100:.2f} dollars"
    return FileGoal(
        id=f"{record.asin}-{number}",
        text=text,
        product=record.asin,
        title=record.name,
        kind=product.kind,
        categories=product.categories,
        attributes=tuple(told.instruction_attributes),
        options=tuple(_option_text(value) for value in told.wanted_options()),
        max_price=limit,
    )


def _product(record: ProductRecord) -> Product:
    product = Product(
        id=record.asin,
        title=" ".join(record.name.split()),
        kind=record.query.strip().lower(),
        price=price_in_cents(record.pricing),
        attributes=tuple(record.attributes),
        options={
            name.lower(): tuple(map(Value, dict.fromkeys(map(_option_text, texts))))
            for name, texts in record.option_texts().items()
        },
        features=tuple(" ".join(line.split()) for line in record.bullet_points()),
        description=" ".join((record.full_description or "").split()),
        categories=tuple(part.strip() for part in record.product_category.split("\u203a")),
    )
    return product if product.kind else replace(product, kind=record.category.lower())


def _option_text(text: str) -> str:
    return " ".join(text.replace("/", " | ").lower().split())


def price_in_cents(pricing: str | list[float] | None) -> int:
    """Return the price of "$9.99", of [9.99], or the higher end of "$9.99$19.99"."""
    if isinstance(pricing, str):
        amounts = [re.sub(r"[^\d.]", "", part) for part in pricing.split("$")[1:]]
        prices = [float(amount) for amount in amounts if re.fullmatch(r"\d{0,9}\.?\d{1,9}", amount)]
    else:
        prices = list(pricing or [])
    return round(100 * max(prices[:2])) if prices else UNKNOWN_PRICE
