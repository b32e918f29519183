"""A local HTTP server of which no file can be had; the path says in which way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

GONE, LOOP, SILENT, STALLS, TRICKLES = "gone", "loop", "silent", "stalls", "trickles"
"""404, redirects to itself, never answers, answers and sends no more, sends a byte at a time."""


@contextmanager
def serving() -> Iterator[str]:
    """The server's address; it serves until left."""
    over = Event()

    class Bad(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v2/":  # a registry's clients ask first whether it is one
                self._answer(b"{}", 2)
            elif f"/{LOOP}/" in self.path:
                self.send_response(302)
                self.send_header("Location", self.path)
                self.end_headers()
            elif f"/{SILENT}/" in self.path:
                over.wait()
            elif f"/{STALLS}/" in self.path:
                self._answer(b"{", 1000)
                over.wait()
            elif f"/{TRICKLES}/" in self.path:
                self._answer(b"{", 1000)
                while not over.wait(0.01):
                    self.wfile.write(b" ")
            else:
                self.send_error(404)

        def _answer(self, beginning: bytes, length: int) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(beginning)
            self.wfile.flush()

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
