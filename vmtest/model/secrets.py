"""What looks like a password in a command or an address, left out of what is kept.  Pure.

A run's files are read by everybody who sees the CI's artifacts.  Nothing here can know every
secret: it hides what is named as one, what stands in an address before the host, and tokens of
well-known shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
_NAMES = (
    "token", "tokens", "password", "passwd", "passphrase", "pass", "secret", "secrets", "pat",
    "credential", "credentials", "apikey", "auth", "authorization", "bearer",
)  # fmt: skip
_PAIRS = (("api", "key"), ("private", "key"), ("access", "key"), ("secret", "key"))
_ASSIGNED = re.compile(r"""(?<![\w-])(-{0,2}\w[\w.-]*)=("[^"]*"|'[^']*'|[^\s;&|'"]+)""")
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|x-[\w-]*token|x-api-key)(:\s*)((?:basic|bearer|token)\s+)?[^\s'\"]+",
    re.IGNORECASE,
)
_USER = re.compile(r"(?<=://)[^\s/'\"]+@")
_TOKEN = re.compile(
    r"\b(?:gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}"
    r"|sk-[\w-]{20,}|AKIA[A-Z0-9]{16}|eyJ[\w-]{4,}\.eyJ[\w-]{4,}\.[\w-]*)"
)


def names_secret(name: str) -> bool:
    """Whether an option or variable of this name has a secret: ``--api-key``, ``GH_TOKEN``."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    parts = [part.lower() for part in re.split(r"[^A-Za-z0-9]+", split) if part]
    return any(part in _NAMES for part in parts) or any(pair in pairwise(parts) for pair in _PAIRS)


def without_secrets(text: str) -> str:
    """``text`` with ``***`` where a secret stands."""

    def assigned(match: re.Match[str]) -> str:
        return f"{match[1]}={HIDDEN}" if names_secret(match[1]) else match[0]

    text = _ASSIGNED.sub(assigned, text)
    text = _HEADER.sub(lambda match: f"{match[1]}{match[2]}{match[3] or ''}{HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, _USER.sub(f"{HIDDEN}@", text))


def words_without_secrets(words: Iterable[str]) -> list[str]:
    """The words of a command with ``***`` for each secret, also behind ``--token`` and its like."""
    hidden: list[str] = []
    secret = False
    for word in words:
        if secret and not word.startswith("-"):
            hidden.append(HIDDEN)
            secret = False
            continue
        secret = bool(re.fullmatch(r"--?[A-Za-z][\w-]*", word)) and names_secret(word)
        hidden.append(without_secrets(word))
    return hidden


def split_user(url: str) -> tuple[str, str, str]:
    """``url`` without its user, the user and the password ("" without)."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, "", ""
    name, _, password = user.partition(":")
    return parts._replace(netloc=host).geturl(), unquote(name), unquote(password)
