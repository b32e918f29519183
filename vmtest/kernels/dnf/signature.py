"""Whether what a repository gives out is signed by its key: gpgv and rpmkeys decide."""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from pathlib import Path

from vmtest.errors import UsageError
from vmtest.host import interrupt
from vmtest.host.cache import check_room, require_tool
from vmtest.host.debian import clean_environment
from vmtest.model.text import last_line

_BLOCK = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----[^\n]*\n(.*?)-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_LIMIT = 60.0


def read_keys(keyring: Path, label: str) -> tuple[bytes, ...]:
    """The keys in a file, unpacked, a block each: armoured ones are called RPM-GPG-KEY-... .

    ``label`` is the archive.  Raises UsageError for a file that is missing or has no key.
    """
    try:
        data = keyring.read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"kernels.toml: {label} keyring: {keyring}: {why}") from error
    if b"-----BEGIN PGP" in data:
        text = data.decode("ascii", "replace").replace("\r\n", "\n")
        keys = tuple(_unarmoured(block, keyring, label) for block in _BLOCK.findall(text))
    else:
        keys = (data,)
    if not keys or not all(key and key[0] & 0x80 for key in keys):  # a packet's first bit
        raise UsageError(f"kernels.toml: {label} keyring: {keyring} has no key of OpenPGP")
    return keys


def _unarmoured(block: str, keyring: Path, label: str) -> bytes:
    _, _, body = f"\n{block}".partition("\n\n")
    lines = [line.strip() for line in body.splitlines()]
    try:
        return base64.b64decode("".join(x for x in lines if not x.startswith("=")), validate=True)
    except binascii.Error as error:
        raise UsageError(
            f"kernels.toml: {label} keyring: {keyring} has a key that is damaged: {error}"
        ) from error


def check_metadata(signature: Path, file: Path, keys: tuple[bytes, ...]) -> str:
    """Why ``signature`` does not vouch for ``file``, empty when it does."""
    gpgv = require_tool("gpgv", "gpgv", "to check the signatures of repositories")
    with tempfile.TemporaryDirectory(prefix="vmtest-gpgv-") as name:
        ring = Path(name) / "keys.gpg"
        ring.write_bytes(b"".join(keys))
        command = [gpgv, "--homedir", name, "--keyring", str(ring), "--status-fd", "1"]
        done = interrupt.run(
            [*command, str(signature), str(file)], env=clean_environment(), timeout=_LIMIT
        )
    if done.returncode == 0 and "[GNUPG:] GOODSIG" in done.stdout:
        return ""
    if key := re.search(r"\[GNUPG:\] NO_PUBKEY (\w+)", done.stdout):
        return f"it is signed by the key {key[1]}, which the keyring does not have"
    if "[GNUPG:] BADSIG" in done.stdout:
        return "its signature is of other content"
    if expired := re.search(r"\[GNUPG:\] (EXPKEYSIG|REVKEYSIG) (\w+)", done.stdout):
        return f"the key {expired[2]} that signed it has expired or was revoked"
    check_room(Path(tempfile.gettempdir()), "checking the signature of a repository")
    return f"its signature cannot be read: {last_line(done.stderr) or 'gpgv says nothing'}"


def check_package(package: Path, keys: tuple[bytes, ...]) -> str:
    """Why the signature in an .rpm does not vouch for it, empty when it does."""
    rpmkeys = require_tool("rpmkeys", "rpm", "to check the signatures of .rpm packages")
    with tempfile.TemporaryDirectory(prefix="vmtest-rpmkeys-") as name:
        ring = Path(name) / "keys.asc"
        ring.write_text("".join(map(_armoured, keys)))
        command = [rpmkeys, "--dbpath", str(Path(name) / "db")]
        taken = interrupt.run(
            [*command, "--import", str(ring)], env=clean_environment(), timeout=_LIMIT
        )
        if taken.returncode != 0:
            check_room(Path(name), "checking the signature of a package")
            return f"rpm does not take the keyring: {last_line(taken.stderr)}"
        level = ["--define", "_pkgverify_level signature"]
        done = interrupt.run(
            [*command, *level, "--checksig", "--verbose", str(package)],
            env=clean_environment(),
            timeout=_LIMIT,
        )
    if done.returncode == 0:
        return ""
    check_room(Path(tempfile.gettempdir()), "checking the signature of a package")
    said = [line.strip() for line in done.stdout.splitlines()[1:]]
    telling = [line for line in said if not line.endswith(": OK")]
    return telling[0] if telling else "it is not signed"


def _armoured(key: bytes) -> str:
    """``key`` as rpmkeys takes it, with the checksum that it insists on (RFC 4880, 6.1)."""
    crc = 0xB704CE
    for byte in key:
        crc ^= byte << 16
        for _ in range(8):
            crc = crc << 1 ^ (0x1864CFB if crc & 0x800000 else 0)
    check = base64.b64encode(crc.to_bytes(3, "big")).decode()
    begin, end = (f"-----{word} PGP PUBLIC KEY BLOCK-----\n" for word in ("BEGIN", "END"))
    return f"{begin}\n{base64.encodebytes(key).decode()}={check}\n{end}"
