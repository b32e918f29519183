"""A file by HTTP: through the environment's proxies, resumed, whole or refused."""

from __future__ import annotations

import base64
import errno
import http.client
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from vmtest.errors import KernelUnavailable
from vmtest.host import attempts, interrupt
from vmtest.host.cache import require_space
from vmtest.host.tarstream import TooLarge
from vmtest.model.kernels import Progress
from vmtest.model.secrets import split_user, without_secrets

_ATTEMPTS = 4
_PAUSE = 1.0
_TIMEOUT = 30.0
_CHUNK = 1 << 18
_WINDOW = 60.0
_LEAST = 64 << 10
_BUSY = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the server said of a file: its validator (ETag, or when it changed) and its size."""

    validator: str = ""
    total: int = 0


class _Short(Exception):
    """The connection ended before the file did; ``seen`` is what was said of it."""

    def __init__(self, message: str, seen: _Seen) -> None:
        super().__init__(message)
        self.seen = seen


DOWNLOAD_LIMIT = 4 << 30
"""What a file may have, in bytes, where its reader gives no other limit."""


def download(
    url: str,
    target: Path,
    name: str,
    progress: Progress | None = None,
    limit: int = DOWNLOAD_LIMIT,
) -> None:
    """Write what is at ``url`` to ``target``; what is there already is not taken for a part of it.

    A connection that breaks is continued where the server says that the file is still the
    same.  ``name`` is what errors call the kernel, ``limit`` what the file may have, in bytes.
    Raises DownloadFailed when the server refuses, sends more, or has failed several times; OSError
    for a full disk.  Whether the content is the right one is the caller's to check.
    """
    target.unlink(missing_ok=True)
    seen = _Seen()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _continue(url, target, seen, name, progress, limit)
            return
        except TooLarge as error:
            target.unlink(missing_ok=True)
            raise DownloadFailed(name, url, str(error), refused=True) from None
        except _Short as short:
            seen, why = short.seen, str(short)
        except urllib.error.HTTPError as error:
            error.close()
            why = f"HTTP status {error.code} {error.reason}".rstrip()
            if 300 <= error.code < 400:
                why = f"it redirects without end (HTTP status {error.code})"
                raise DownloadFailed(name, url, why, refused=True) from None
            if error.code == 416:  # what is there is not its beginning
                target.unlink(missing_ok=True)
                seen = _Seen()
            elif 400 <= error.code < 500 and error.code not in _BUSY:
                absent = error.code in (404, 410)
                raise DownloadFailed(name, url, why, refused=True, absent=absent) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, FileNotFoundError):  # of a file: URL
                why = "there is no such file"
                raise DownloadFailed(name, url, why, refused=True, absent=True) from None
            why = _words(error.reason) if isinstance(error.reason, OSError) else str(error.reason)
        except (http.client.HTTPException, ValueError) as error:
            why = str(error) or type(error).__name__
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            why = _words(error)
        if attempt < _ATTEMPTS:
            attempts.again(f"{name}: downloading {url}", why, attempt, _ATTEMPTS)
            interrupt.current().pause(_PAUSE * attempt)
    raise DownloadFailed(name, url, f"{why} ({_ATTEMPTS} attempts)", refused=False)


class DownloadFailed(KernelUnavailable):
    """A file cannot be had: ``why``, with its address.

    ``refused`` when the server said so, and would again; ``absent`` when it does not have it.
    """

    def __init__(
        self, name: str, url: str, why: str, *, refused: bool, absent: bool = False
    ) -> None:
        url, why = without_secrets(url), without_secrets(why)
        super().__init__(
            f"{name}: downloading {url} failed: {why}; nothing was stored: check the address, the "
            f"network and the proxy settings, and try again"
        )
        self.why = f"{url}: {why}"
        self.refused, self.absent = refused, absent
        self._made_of = (name, url, why)

    def __reduce__(self) -> tuple[Callable[..., DownloadFailed], tuple[object, ...]]:
        made = partial(DownloadFailed, refused=self.refused, absent=self.absent)
        return made, self._made_of


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT:.0f} s"
    return error.strerror or str(error)


def _hang_up(response: Any) -> None:
    """Wake who reads ``response``: its socket has no public name."""
    socket_ = getattr(getattr(response.fp, "raw", None), "_sock", None)
    if socket_ is not None:
        socket_.shutdown(socket.SHUT_RDWR)


def _continue(
    url: str, target: Path, seen: _Seen, name: str, progress: Progress | None, limit: int
) -> None:
    """Get the rest, or all where it cannot be the rest of the same file.

    Raises _Short, and TooLarge for a file of more than ``limit`` bytes, before it is written.
    """
    done = target.stat().st_size if target.exists() and seen.total else 0
    headers = {"User-Agent": f"vmtest/{metadata.version('vmtest')}"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if seen.validator:
            headers["If-Range"] = seen.validator
    place, user, password = split_user(url)
    request = urllib.request.Request(place, headers=headers)
    if user:
        both = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {both}")  # nobody else's
    # An opener of its own: the shared one keeps the proxies that it once found.
    opener = urllib.request.build_opener()
    with (
        # Each wait has its limit, and all of them together: the resolver's knows none.
        interrupt.abandonable(
            lambda: opener.open(request, timeout=_TIMEOUT), 2 * _TIMEOUT
        ) as response,
        interrupt.current().ending(lambda: _hang_up(response)),
    ):
        length = int(response.headers.get("Content-Length") or 0)
        now = _Seen(_validator(response.headers), length)
        if response.status == 206:
            now = _Seen(now.validator, done + length)
            if now != seen or not _begins_at(response.headers.get("Content-Range"), done):
                target.unlink()
                raise _Short("the file changed while it was downloaded", _Seen())
        else:
            done = 0  # the server starts anew
        if now.total > limit:
            raise _too_large(limit)
        if now.total:
            require_space(target.parent, now.total - done, f"{name}: downloading {place}")
        with target.open("ab" if done else "wb") as out:
            pace = _Pace(done)
            while chunk := _read(response, now):
                done += len(chunk)
                if done > limit:
                    raise _too_large(limit)
                out.write(chunk)
                pace.check(done, now)
                if progress is not None:
                    progress(done, max(done, now.total))
    if done < now.total:
        raise _Short(f"the connection ended after {done} of {now.total} bytes", now)


class _Pace:
    """Whether enough arrives: a server that sends a byte now and then never times out."""

    def __init__(self, done: int) -> None:
        self._done, self._since = done, time.monotonic()

    def check(self, done: int, now: _Seen) -> None:
        """Raise _Short when next to nothing arrived in a while."""
        if time.monotonic() - self._since < _WINDOW:
            return
        if done - self._done < _LEAST:
            raise _Short(f"only {done - self._done} bytes arrived in {_WINDOW:.0f} s", now)
        self._done, self._since = done, time.monotonic()


def _too_large(limit: int) -> TooLarge:
    size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit} bytes"
    return TooLarge(f"it is larger than {size}, which no such file is")


def _read(response: http.client.HTTPResponse, now: _Seen) -> bytes:
    try:
        return response.read1(_CHUNK)  # not until all of it is there: that may be never
    except TimeoutError as error:
        raise _Short(f"the server sent nothing for {_TIMEOUT:.0f} s", now) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Short(str(error) or type(error).__name__, now) from error


def _validator(headers: Message) -> str:
    """What names this state of the file: a strong ETag, else when it was last changed."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _begins_at(content_range: str | None, done: int) -> bool:
    """Whether the part that a server sends (``bytes 600-999/1000``) begins where it should."""
    return (content_range or "").startswith(f"bytes {done}-")
