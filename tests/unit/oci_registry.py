"""A registry of container images on the loopback: the real docker-registry, filled by skopeo."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from bad_server import misbehave

from vmtest.host.cache import find_tool

needed = pytest.mark.skipif(
    find_tool("docker-registry") is None or find_tool("skopeo") is None,
    reason="docker-registry or skopeo is not installed on this host",
)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the images in ``folder``; gives the registry's host and port."""
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder / 'data'}\n"
        f"http:\n  addr: 127.0.0.1:0\nlog:\n  level: info\n"
    )
    tool = find_tool("docker-registry")
    assert tool is not None
    with subprocess.Popen(
        [tool, "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={"OTEL_TRACES_EXPORTER": "none"},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if match := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
                break
        else:
            raise AssertionError("docker-registry ended before it listened")
        try:
            yield match[1]
        finally:
            process.terminate()
            process.stderr.read()


@contextmanager
def stumbling(host: str, bad: str = "") -> Iterator[str]:
    """A registry in front of that at ``host``: whoever begins to talk to it gets 503 at first.

    If there is a way of bad_server.py in which nothing of its blobs can be had, it does that.
    """
    greeted: list[str] = []
    over = Event()

    class Stumbling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path in ("/v2/", "/v1/_ping") and not bad:
                greeted.append(self.path)
                if greeted.count("/v2/") % 2:
                    self.send_error(503)
                    return
            if bad and "/blobs/" in self.path:
                with suppress(OSError):  # it went away, as it should
                    misbehave(self, bad, over)
                return
            asked = http.client.HTTPConnection(host)
            asked.request("GET", self.path, headers=dict(self.headers))
            answer = asked.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for name in (
                "Content-Type",
                "Docker-Content-Digest",
                "Docker-Distribution-API-Version",
            ):
                if value := answer.getheader(name):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            del format, arguments

    with ThreadingHTTPServer(("127.0.0.1", 0), Stumbling) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def push(folder: Path, image: str, files: Mapping[str, bytes]) -> None:
    """Put an image with one layer of ``files`` into the registry as ``image``."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    folder.mkdir()

    def blob(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        place = folder / "blobs/sha256" / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.oci.image"
    layer = blob(gzip.compress(tar.getvalue(), mtime=0))
    diff = hashlib.sha256(tar.getvalue()).hexdigest()
    config = blob(
        json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
            }
        ).encode()
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", **config},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", **layer}],
    }
    described = blob(json.dumps(manifest).encode())
    index = {
        "schemaVersion": 2,
        "manifests": [{"mediaType": f"{kind}.manifest.v1+json", **described}],
    }
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    command = ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]
    subprocess.run([*command, f"oci:{folder}", f"docker://{image}"], check=True)
