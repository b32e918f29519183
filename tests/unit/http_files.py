"""A local HTTP server that gives out files, and can be told to do it badly."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from bad_server import misbehave


@dataclass
class Served:
    """What the server gives out, and what it was asked.

    ``cut`` has how many bytes the answers to come send before they hang up, one a
    request; ``statuses`` what they answer instead (0: they hang up), and ``refused`` the same by
    the file's name; ``ranges`` whether it continues files; ``tags`` whether it says by an ETag
    which file that is; ``length`` whether it says how long a file is; ``bad`` has endings of
    paths, and in which way of bad_server.py nothing of these files can be had; ``after`` is called
    after each answer.
    """

    files: dict[str, bytes]
    ranges: bool = True
    cut: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    tags: bool = True
    length: bool = True
    bad: dict[str, str] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    after: Callable[[], None] = lambda: None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    """Serve until left."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            served.asked.append((self.path, wanted))
            served.authorization.append(self.headers.get("Authorization"))
            if served.statuses and (status := served.statuses.pop(0)) != 200:
                if status:
                    self.send_error(status)
                return
            if refused := served.refused.get(self.path.rpartition("/")[2]):
                self.send_error(refused)
                return
            for ending, kind in served.bad.items():
                if self.path.endswith(ending):
                    misbehave(self, kind, over, len(served.files.get(self.path, b"")))
                    return
            data = served.files.get(unquote(self.path))  # apt writes + as %2b
            if data is None:
                self.send_error(404)
                return
            tag = f'"{hashlib.sha256(data).hexdigest()}"'
            begin = 0
            if wanted and served.ranges and self.headers.get("If-Range") in (None, tag):
                begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            if begin >= len(data) > 0:
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            if served.length:
                self.send_header("Content-Length", str(len(data) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            if served.tags:
                self.send_header("ETag", tag)
            self.end_headers()
            length = served.cut.pop(0) if served.cut else len(data)
            self.wfile.write(data[begin : begin + length])
            served.after()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def handle(self) -> None:
            with suppress(OSError) if served.bad else nullcontext():  # it went away, as it should
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
