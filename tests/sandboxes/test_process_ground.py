"""What a state sees of the host: the interpreter wherever it lies, and nothing of ours."""

import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from treegrpo.sandboxes import Level, Sandbox, open_backend

SCRIPT = """
import sys
sys.path.append({repository!r})
sys.path.append({packages!r})
from treegrpo.sandboxes import open_backend
with open_backend("process") as backend:
    sandbox = backend.create()
    fork = sandbox.fork()[0]
    print(fork.exec("import sys, csv, os; (sys.prefix, os.path.isdir(sys.prefix))").value)
    print(fork.exec("os.listdir({above!r})").value)
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with open_backend("process") as backend:
        if backend.probe().level < Level.L2:
            pytest.skip("the host gives no user namespaces")
        yield backend.create()


def test_an_environment_below_tmp_or_beside_our_own_code_is_there(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.close()
    place = tmp_path / "clone"
    (place / "secret").mkdir(parents=True)
    venv.create(place / ".venv", with_pip=False)
    repository = Path(__file__).resolve().parents[2]
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    code = SCRIPT.format(repository=str(repository), packages=packages, above=str(place))
    python = place / ".venv" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"('{place}/.venv', True)", "['.venv']"]


def test_our_own_code_is_not_there(sandbox: Sandbox) -> None:
    told = sandbox.exec("import importlib.util; importlib.util.find_spec('treegrpo')")
    assert told.ok and told.value is None
    repository = str(Path(__file__).resolve().parents[2])
    found = sandbox.exec(f"import os; os.path.exists({repository!r} + '/sandboxes')")
    assert found.value == "False"


def test_programs_that_the_host_chooses_by_links_run(sandbox: Sandbox) -> None:
    """On Debian /usr/bin/awk leads to /etc/alternatives/awk, and that to a program of /usr."""
    if not Path("/etc/alternatives/awk").exists():
        pytest.skip("the host has no /etc/alternatives/awk")
    told = sandbox.exec(
        "import subprocess\n"
        "subprocess.run(['awk', 'BEGIN { print 6 * 7 }'], capture_output=True, text=True).stdout"
    )
    assert told.ok and told.value == repr("42\n")
    linked = sandbox.exec(
        "import os\nroot = '/etc/alternatives'\n"
        "{os.readlink(f'{root}/{n}').split('/')[1] for n in os.listdir(root)} <= {'usr', 'bin'}"
    )
    assert linked.value == "True"
    written = sandbox.exec("open('/etc/alternatives/mine', 'w')")
    assert written.kind == "exception"
