"""A real PostgreSQL for tests: a throw-away cluster on a Unix socket, one database per test.

Debian's package is enough (`apt-get install postgresql`); nothing listens on a port. As root the
server runs as the user postgres, since it refuses to run as root.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

IS_REQUIRED = os.environ.get("TREEGRPO_REQUIRE_POSTGRES") == "1"
"""Nothing is left out: a PostgreSQL that is missing fails the test."""
_names = itertools.count()


@functools.cache
def programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, newest version first; None if there is none."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    found = shutil.which("initdb")
    candidates = [*reversed(folders), *([Path(found).parent] if found else [])]
    return next((one for one in candidates if (one / "pg_ctl").exists()), None)


def missing() -> str:
    """Return why there can be no PostgreSQL here, "" if there can."""
    if programs() is None:
        return "needs PostgreSQL's initdb and pg_ctl (Debian: postgresql)"
    try:
        _user()
    except KeyError:
        return "needs the user postgres, since PostgreSQL does not run as root"
    return ""


@pytest.fixture(scope="session")
def postgres_server() -> Generator[Path]:
    """Yield the folder of the socket of a server that ends with the session."""
    if reason := missing():
        if IS_REQUIRED:
            pytest.fail(f"TREEGRPO_REQUIRE_POSTGRES=1, but this test {reason}")
        pytest.skip(reason)
    # Not below pytest's folders: others must be able to enter, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    if (user := _user()) is not None:
        os.chown(folder, *user)
    data, log = folder / "data", folder / "log"
    try:
        _run("initdb", "-D", data, "-U", "treegrpo", "-A", "trust", "-E", "UTF8", "--no-sync",
             "--locale=C")  # fmt: skip
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        _run("pg_ctl", "-D", data, "-l", log, "-w", "-t", "120", "-o", options, "start")
        try:
            yield folder
        finally:
            _run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: Path) -> Generator[str]:
    """Yield the URL of an empty database."""
    with postgres_database(postgres_server) as url:
        yield url


@contextlib.contextmanager
def postgres_database(server: Path) -> Generator[str]:
    """Yield the URL of an empty database that is dropped at the end."""
    name = f"test{next(_names)}"
    connect = ["-h", str(server), "-U", "treegrpo"]
    _run("createdb", *connect, name)
    try:
        yield f"postgresql+psycopg://treegrpo@/{name}?host={server}"
    finally:
        _run("dropdb", *connect, "--force", name)


def _user() -> tuple[int, int] | None:
    """Return whom the server runs as, None for whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    found = pwd.getpwnam("postgres")
    return found.pw_uid, found.pw_gid


def _run(program: str, *words: object) -> None:
    folder, user = programs(), _user()
    assert folder is not None
    command: Sequence[str] = [str(folder / program), *map(str, words)]
    uid, gid = user or (None, None)
    done = subprocess.run(
        command,
        user=uid,
        group=gid,
        extra_groups=None if user is None else [],
        cwd="/",
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        # A file, not a pipe: the server that pg_ctl leaves behind would hold a pipe open.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
