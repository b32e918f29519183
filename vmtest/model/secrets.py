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
# Names that are set in each other: --env=TOKEN=...
_NAME = r"((?:-{0,2}\w[\w.-]{0,200}=)+)"
# A value ends where a shell's word ends, or with the quotes that stand before its name.
_ASSIGNED = re.compile(
    rf"(?<=')(?<![\w-]){_NAME}([^']+)"
    rf'|(?<=")(?<![\w-]){_NAME}((?:\\.|[^"\\])+)'
    rf"""|(?<![\w-]){_NAME}((?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|['"](?=\S)|[^\s;&|'"\\])+)""",
    re.DOTALL,
)
_WHOLE = re.compile(rf"{_NAME}(.+)", re.DOTALL)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|x-[\w-]*token|x-api-key)(:\s*)((?:basic|bearer|token)\s+)?[^\s'\"]+",
    re.IGNORECASE,
)
# A password may hold a slash.  What looks like a port is one: https://host:80/a@b.
_USER = re.compile(r"(?<=://)(?:[^\s/'\"@:\[]*:(?!\d{1,5}(?:/|$))[^\s'\"]{0,1000}|[^\s/'\"]+)@")
_WHOLE_HEADER = re.compile(r"([A-Za-z][\w-]*)(:\s+(?:(?:basic|bearer|token)\s+)?)(.+)", re.I | re.S)
_WHOLE_USER = re.compile(
    r"((?:-{0,2}\w[\w.-]{0,200}=)*\w[\w+.-]*://)"
    r"(?:[^\s/@:\[]*:(?!\d{1,5}(?:/|$)).*|[^/]+)@([^@]*)",
    re.DOTALL,
)
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
        name = match[1] or match[3] or match[5]
        return f"{name}{HIDDEN}" if names_secret(name) else match[0]

    text = _ASSIGNED.sub(assigned, text)
    text = _HEADER.sub(lambda match: f"{match[1]}{match[2]}{match[3] or ''}{HIDDEN}", text)
    return _without_shapes(text)


def without_shapes(word: str) -> str:
    """A word without what is a secret whatever it is called: an address's user, a token."""
    return _without_shapes(_without_user(word))


def _without_user(word: str) -> str:
    match = _WHOLE_USER.fullmatch(word)
    return f"{match[1]}{HIDDEN}@{match[2]}" if match else word


def _without_shapes(text: str) -> str:
    return _TOKEN.sub(HIDDEN, _USER.sub(f"{HIDDEN}@", text))


def words_without_secrets(words: Iterable[str]) -> list[str]:
    """The words of a command with ``***`` for each secret, also behind ``--token`` and its like."""
    hidden: list[str] = []
    secret = False
    for word in words:
        # A secret may begin with "-": better an option too many hidden than a secret too few.
        hidden.append(HIDDEN if secret else _word_without_secrets(word))
        names = bool(re.fullmatch(r"--?[A-Za-z][\w-]*", word)) and names_secret(word)
        secret = names and (not secret or word.startswith("--"))
    return hidden


def _word_without_secrets(word: str) -> str:
    """A word as a program gets it: no shell ends the value in it at a space or a quote."""
    for whole in (_WHOLE, _WHOLE_HEADER):
        if (match := whole.fullmatch(word)) and names_secret(match[1]):
            kept = "".join(match.groups()[:-1])
            return f"{kept}{HIDDEN}"
    return without_secrets(_without_user(word))


def split_user(url: str) -> tuple[str, str, str]:
    """``url`` without its user, the user and the password ("" without)."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, "", ""
    name, _, password = user.partition(":")
    return parts._replace(netloc=host).geturl(), unquote(name), unquote(password)
