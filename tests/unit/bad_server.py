"""A local HTTP server of which no file can be had; the path says in which way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from socket import SHUT_RDWR
from threading import Event, Thread

GONE, LOOP, SILENT, STALLS, TRICKLES = "gone", "loop", "silent", "stalls", "trickles"
"""404, redirects to itself, never answers, answers and sends no more, sends a byte at a time."""
KINDS = (GONE, LOOP, SILENT, STALLS, TRICKLES)
VANISHES = "vanishes"
"""Hangs up within the file, and from then on nobody listens there: it takes the whole server."""


def misbehave(to: BaseHTTPRequestHandler, kind: str, over: Event, length: int = 1000) -> None:
    """Answer a request for a file of that ``length`` in that way, until it is ``over``."""
    if kind == LOOP:
        to.send_response(302)
        to.send_header("Location", to.path)
        to.end_headers()
    elif kind == SILENT:
        over.wait()
    elif kind == STALLS:
        _answer(to, b"{", length)
        over.wait()
    elif kind == TRICKLES:
        _answer(to, b"{", length)
        while not over.wait(0.01):
            to.wfile.write(b" ")
    elif kind == VANISHES:
        assert isinstance(to.server, HTTPServer)
        to.server.socket.shutdown(SHUT_RDWR)
        _answer(to, b"{", length)
    else:
        to.send_error(404)


def _answer(to: BaseHTTPRequestHandler, beginning: bytes, length: int) -> None:
    to.send_response(200)
    to.send_header("Content-Length", str(length))
    to.end_headers()
    to.wfile.write(beginning)
    to.wfile.flush()


@contextmanager
def serving() -> Iterator[str]:
    """The server's address; it serves until left."""
    over = Event()

    class Bad(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v2/":  # a registry's clients ask first whether it is one
                _answer(self, b"{}", 2)
            else:
                kinds = (kind for kind in KINDS if f"/{kind}/" in self.path)
                misbehave(self, next(kinds, GONE), over)

        def log_message(self, format: str, *arguments: object) -> None:
            del format, arguments

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                return  # the client went away, as it should

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bad)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
