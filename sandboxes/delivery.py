"""How the guest gets to the far side: as source, over the stream it will speak on.

The far interpreter may be another version in a container without our package, so nothing is
installed there. BOOT is the whole of what is passed on the command line.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

# Reads 8 hex digits of length and a JSON text from descriptor 0, defines the modules it holds,
# and runs launcher.main. Each module gets a copy of the builtins, so that untrusted code that
# replaces builtins does not reach into ours.
BOOT = """
import builtins, importlib.abc, importlib.util, json, os, sys
def _take(n):
    parts = []
    while n:
        part = os.read(0, min(n, 65536))
        if not part: os._exit(0)
        parts.append(part); n -= len(part)
    return b"".join(parts)
_frame = json.loads(_take(int(_take(8), 16)))
class _Sent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
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


@cache
def _sources() -> dict[str, str]:
    """Return the guest's modules by name; the packages above them are empty there."""
    found: dict[str, str] = {name: "" for name in _PACKAGES}
    for file in resources.files("treegrpo.sandboxes.guest").iterdir():
        stem, dot, suffix = file.name.rpartition(".")
        if dot and suffix == "py" and stem != "__init__":
            found[f"treegrpo.sandboxes.guest.{stem}"] = file.read_text(encoding="utf-8")
    return found
