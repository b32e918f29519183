"""A file by HTTP: through the environment's proxies, resumed, whole or refused."""

from __future__ import annotations

import errno
import http.client
import time
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import require_space
from vmtest.model.kernels import Progress

_ATTEMPTS = 4
_PAUSE = 1.0
_TIMEOUT = 30.0
_CHUNK = 1 << 18
_BUSY = (408, 425, 429)


class _Short(Exception):
    """The connection ended before the file did."""


def download(url: str, target: Path, name: str, progress: Progress | None = None) -> None:
    """Write what is at ``url`` to ``target``, continuing what is there already.

    ``name`` is what errors call the kernel.  Raises KernelUnavailable when the server
    refuses, or when it has failed several times; OSError for a full disk.  Whether the
    content is the right one is the caller's to check.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _continue(url, target, name, progress)
            return
        except urllib.error.HTTPError as error:
            error.close()
            why = f"HTTP status {error.code} {error.reason}".rstrip()
            if error.code == 416:  # what is there is no beginning of it
                target.unlink(missing_ok=True)
            elif 400 <= error.code < 500 and error.code not in _BUSY:
                raise _failed(name, url, why) from None
        except urllib.error.URLError as error:
            why = str(error.reason)
        except (_Short, http.client.HTTPException, ValueError) as error:
            why = str(error) or type(error).__name__
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            why = error.strerror or str(error)
        if attempt < _ATTEMPTS:
            time.sleep(_PAUSE * attempt)
    raise _failed(name, url, f"{why} ({_ATTEMPTS} attempts)")


def _failed(name: str, url: str, why: str) -> KernelUnavailable:
    return KernelUnavailable(
        f"{name}: downloading {url} failed: {why}; nothing was stored: check the address, the "
        f"network and the proxy settings, and try again"
    )


def _continue(url: str, target: Path, name: str, progress: Progress | None) -> None:
    done = target.stat().st_size if target.exists() else 0
    headers = {"User-Agent": f"vmtest/{metadata.version('vmtest')}"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(url, headers=headers)
    # An opener of its own: the shared one keeps the proxies that it once found.
    with urllib.request.build_opener().open(request, timeout=_TIMEOUT) as response:
        if response.status != 206:
            done = 0  # the server starts anew
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else 0
        if total:
            require_space(target.parent, total - done, f"{name}: downloading {url}")
        with target.open("ab" if done else "wb") as out:
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, max(done, total))
    if done < total:
        raise _Short(f"the connection ended after {done} of {total} bytes")
