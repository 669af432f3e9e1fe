"""How the guest gets to the far side: as source, over the stream it will speak on.

The far interpreter may be another version in a container without our package, so nothing is
installed there. BOOT is the whole of what is passed on the command line.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

from treegrpo.sandboxes.base import SandboxSpec

IMPORTS: dict[str, list[str]] = {
    "bare": [],
    "numpy": ["numpy", "numpy.linalg", "numpy.random", "numpy.fft"],
}
"""What the guest imports before the first step, by zygote."""

# One thread (numpy is imported before the namespaces are made, which takes a process of one
# thread) and one order of sets in every fork and replay.
ENVIRONMENT: dict[str, str] = {
    "HOME": "/workspace",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
"""The environment of every guest; PATH is the place's own."""

# Reads 8 hex digits of length and a JSON text from descriptor 0, defines the modules it holds,
# and runs launcher.main. Each module gets a copy of the builtins, so that untrusted code that
# replaces builtins does not reach into ours.
BOOT = """
import builtins, importlib.util, json, os, sys
def _take(n):
    parts = []
    while n:
        part = os.read(0, min(n, 65536))
        if not part: os._exit(0)
        parts.append(part); n -= len(part)
    return b"".join(parts)
_frame = json.loads(_take(int(_take(8), 16)))
class _Sent:
    def find_spec(self, name, path=None, target=None):
        if name in _frame["sources"]:
            package = name + ".__init__" in _frame["packages"]
            return importlib.util.spec_from_loader(name, self, is_package=package)
    def create_module(self, spec): return None
    def exec_module(self, module):
        name = module.__name__
        module.__dict__["__builtins__"] = dict(vars(builtins))
        exec(compile(_frame["sources"][name], "<" + name + ">", "exec"), module.__dict__)
_finder = _Sent()
sys.meta_path.insert(0, _finder)
sys.path[:] = [p for p in sys.path if p]
from treegrpo.sandboxes.guest import launcher
sys.meta_path.remove(_finder)
launcher.main(_frame["config"])
"""

_PACKAGES = ("treegrpo", "treegrpo.sandboxes", "treegrpo.sandboxes.guest")


def first_frame(config: dict[str, Any]) -> bytes:
    """Return the bytes that BOOT waits for; `config` goes to launcher.main."""
    frame = {
        "sources": _sources(),
        "packages": [name + ".__init__" for name in _PACKAGES],
        "config": config,
    }
    text = json.dumps(frame).encode()
    return b"%08x" % len(text) + text


def told_spec(spec: SandboxSpec) -> dict[str, Any]:
    """Return the specification as the supervisor reads it, limits beside the rest."""
    told = json.loads(spec.model_dump_json(exclude={"limits"}))
    seed = hashlib.sha256(str(spec.seed).encode()).digest()  # near seeds, far random states
    told["seed"] = int.from_bytes(seed[:8], "big")
    return told | json.loads(spec.limits.model_dump_json())


@cache
def _sources() -> dict[str, str]:
    """Return the guest's modules by name; the packages above them are empty there."""
    found: dict[str, str] = {name: "" for name in _PACKAGES}
    for file in resources.files("treegrpo.sandboxes.guest").iterdir():
        stem, dot, suffix = file.name.rpartition(".")
        if dot and suffix == "py" and stem != "__init__":
            found[f"treegrpo.sandboxes.guest.{stem}"] = file.read_text(encoding="utf-8")
    return found
