"""Signatures: who vouches for a bundle, with an SSH key and the ssh-keygen on the PATH.

run.sig holds what `ssh-keygen -Y sign -n treegrpo` makes of the bundle's digest and a newline.
A signature says that the holder of a key stands behind this bundle. It says nothing about
whether the scores are real: that is replay's to say.
"""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.files import content, write_file

SIGNATURE = "run.sig"
NAMESPACE = "treegrpo"
MAX_SIGNATURE_BYTES = 2**14
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_COLUMNS = 70
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Signer:
    """Whose signature it is: the key's fingerprint, and the name that a list of keys gives it."""

    fingerprint: str
    identity: str | None

    def __str__(self) -> str:
        """Return the name, where one is known, and the key."""
        known = "a key that no list was given for" if self.identity is None else self.identity
        return f"{known} ({self.fingerprint})"


def sign(path: Path, digest: str, key: Path) -> None:
    """Write run.sig of the bundle at `path` with an SSH private key.

    Args:
        path: folder of the bundle.
        digest: the bundle's digest, which is signed.
        key: file of the private key; one with a passphrase asks for it on the terminal.

    Raises:
        BundleError: ssh-keygen is missing or refuses the key.
    """
    with tempfile.TemporaryDirectory() as folder:
        message = Path(folder) / "digest"
        message.write_text(digest + "\n", encoding="ascii")
        words = ["-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(key), str(message)]
        done = _ssh_keygen(words, b"")
        made = message.with_name("digest.sig")
        if done.returncode != 0 or not made.exists():
            raise BundleError(
                f"A signature with the key '{key}' asked for, but ssh-keygen refused: "
                f"{_said(done)}. Give the file of an SSH private key."
            )
        write_file(path / SIGNATURE, made.read_bytes())
    check_form(path)


def check_form(path: Path) -> None:
    """Refuse a run.sig in another spelling than the one that ssh-keygen writes.

    Raises:
        BundleError: says that the signature was altered.
    """
    data = content(path / SIGNATURE, MAX_SIGNATURE_BYTES)
    text = data.decode("ascii", errors="replace")
    try:
        middle = text.removeprefix(_BEGIN + "\n").removesuffix(_END + "\n")
        blob = base64.b64decode(middle.replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    body = base64.b64encode(blob).decode("ascii")
    rows = [body[at : at + _COLUMNS] for at in range(0, len(body), _COLUMNS)]
    if not blob or text != "\n".join([_BEGIN, *rows, _END, ""]):
        raise BundleError(
            f"{SIGNATURE} of the bundle '{path}' is not what ssh-keygen -Y sign writes. "
            "It was altered: get the bundle again, or take the file out."
        )


def check_signature(path: Path, digest: str, allowed_signers: Path | None = None) -> Signer | None:
    """Return whose signature the bundle has, None if it has none.

    Args:
        path: folder of the bundle.
        digest: the bundle's digest.
        allowed_signers: file of known keys, as `man ssh-keygen` describes; without one any key
            is taken, and only its fingerprint is known.

    Raises:
        BundleError: the signature is not of this bundle, its key is not in the list, or
            ssh-keygen is missing.
    """
    file = path / SIGNATURE
    if not file.exists():
        return None
    check_form(path)
    message, identity = (digest + "\n").encode("ascii"), None
    words = ["-n", NAMESPACE, "-s", str(file)]
    if allowed_signers is None:
        done = _ssh_keygen(["-Y", "check-novalidate", *words], message)
    else:
        listed = ["-f", str(allowed_signers)]
        found = _ssh_keygen(["-Y", "find-principals", "-s", str(file), *listed], message)
        identity = (found.stdout.decode(errors="replace").splitlines() or [""])[0]
        done = _ssh_keygen(["-Y", "verify", *words, *listed, "-I", identity or "nobody"], message)
    said = done.stdout.decode(errors="replace")
    key = re.search(r"SHA256:[A-Za-z0-9+/]+", said)
    if done.returncode != 0 or key is None:
        raise BundleError(
            f"{SIGNATURE} of the bundle '{path}' is no valid signature of it: {_said(done)}. "
            "Get the bundle again, or take the file out."
        )
    return Signer(key.group(), identity)


def _ssh_keygen(words: list[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise BundleError(
            "A signature asked for, but there is no ssh-keygen on the PATH. Install OpenSSH's "
            f"client (Debian: openssh-client), or take {SIGNATURE} out of the bundle."
        )
    try:
        return subprocess.run(
            [program, *words], input=stdin, capture_output=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BundleError(
            f"A signature asked for, but ssh-keygen failed: {error}. Try it by hand."
        ) from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    words = (done.stderr + b" " + done.stdout).decode(errors="replace").split()
    return ascii(" ".join(words))[1:-1][:300] or f"exit status {done.returncode}"
