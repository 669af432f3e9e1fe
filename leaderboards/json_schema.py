"""The JSON Schemas of a bundle's files, as other programs read them.

python -m treegrpo.leaderboards.json_schema      writes leaderboards/schemas/*.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treegrpo.leaderboards.schema import EpisodeRecord, Manifest
from treegrpo.leaderboards.trajectories import EVENT

FOLDER = Path(__file__).parent / "schemas"


def schemas() -> Mapping[str, dict[str, Any]]:
    """Return the schema of each file, by the name of the schema's file."""
    found = {
        "run": Manifest.model_json_schema(),
        "episode": EpisodeRecord.model_json_schema(),
        "event": EVENT.json_schema(),
    }
    titles = {
        "run": "run.json",
        "episode": "a line of episodes.jsonl",
        "event": "a line of trajectories/*.jsonl.gz",
    }
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"{name}.schema.json": {**dialect, **schema, "title": titles[name]}
        for name, schema in found.items()
    }


def write(folder: Path = FOLDER) -> None:
    """Write every schema into a folder."""
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2, sort_keys=True) + "\n", "ascii")


if __name__ == "__main__":
    write()
