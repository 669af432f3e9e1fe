"""Random projects: folders and files to look through, and the words they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from treegrpo.envs.suite.terminal.disk import Disk, Repo, disk_of

T = TypeVar("T")


def _listed(text: str) -> tuple[str, ...]:
    """Return the words of a text: a list that is easy to read in the source."""
    return tuple(text.split())


PROJECTS = _listed("harbor orchard lantern meadow quarry beacon willow summit delta ferry")
AREAS = _listed(
    "intake ledger survey archive notes fleet kiosk depot studio garden pantry office bridge plant"
)
FOLDERS = _listed("north south east west old new first second upper lower main side inner outer")
NAMES = _listed(
    "amber basil cedar dahlia elm fennel ginger hazel iris juniper kale laurel maple nettle olive "
    "poppy quince rowan sage thyme umber violet walnut yarrow aster birch clover daisy"
)
WORDS = _listed(
    "the order was sent on time and nobody asked about a parcel that came late from town while "
    "every shelf stayed full of paper boxes rope glass tools paint cloth"
)


@dataclass
class World:
    """A project while it is drawn: its files, and the histories it holds."""

    rng: np.random.Generator
    depth: int
    files_per_folder: int
    root: str = ""
    files: dict[str, str] = field(default_factory=dict[str, str])
    repos: dict[str, Repo] = field(default_factory=dict[str, Repo])
    areas: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.root = f"/srv/{self.pick(PROJECTS)}"
        self.areas = [f"{self.root}/{name}" for name in self.some(AREAS, len(AREAS))]

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[int(self.rng.integers(len(items)))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """Return `count` different items in random order."""
        return [items[int(i)] for i in self.rng.permutation(len(items))[:count]]

    def number(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def area(self) -> tuple[str, list[str]]:
        """Return the path of a folder nobody uses yet, and all folders in it, itself first."""
        base = self.areas.pop()
        folders = [base]
        for level in range(self.depth):
            parents = folders[-2:] if level else [base]
            folders += [f"{parent}/{name}" for parent in parents for name in self.some(FOLDERS, 2)]
        return base, folders

    def names(self, count: int) -> list[str]:
        """Return `count` different names for files, without an ending."""
        plain = self.some(NAMES, min(count, len(NAMES)))
        more = (f"{name}{number}" for number in range(2, 99) for name in plain)
        return (plain + [next(more) for _ in range(count - len(plain))])[:count]

    def text(self) -> str:
        """Return a few lines of words that mean nothing."""
        lines = (" ".join(self.some(WORDS, self.number(3, 7))) for _ in range(self.number(2, 5)))
        return "".join(f"{line}\n" for line in lines)

    def fill(self, folders: Sequence[str], ending: str) -> list[str]:
        """Add files of meaningless text to every folder, and return their paths."""
        names = iter(self.names(self.files_per_folder * len(folders)))
        paths = [
            f"{folder}/{next(names)}{ending}"
            for folder in folders
            for _ in range(self.files_per_folder)
        ]
        for path in paths:
            self.files[path] = self.text()
        return paths

    def disk(self) -> Disk:
        """Return the disk with everything drawn so far."""
        disk = disk_of(self.files, ("/home/agent", "/tmp", "/srv"))
        return disk.changed({f"{base}/.git": repo for base, repo in self.repos.items()})
