from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from bulkformer_tl import settings
from bulkformer_tl.registry import _transfer

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Page:
    """What the server has at one address, and how it misbehaves."""

    body: bytes
    status: int = 200
    kind: str = "application/octet-stream"
    etag: str | None = '"v1"'
    ranges: bool = True
    states_length: bool = True
    #: Bytes after which each of the next responses is cut.
    cuts: list[int] = field(default_factory=list)
    location: str | None = None


@dataclass
class Server:
    """A local server and what it was asked: (path, Range header)."""

    address: str
    pages: dict[str, Page]
    asked: list[tuple[str, str | None]]


class Handler(BaseHTTPRequestHandler):
    server: ThreadingHTTPServer

    def do_GET(self) -> None:
        pages, asked = self.server.pages, self.server.asked
        wanted = self.headers.get("Range")
        asked.append((self.path, wanted))
        page = pages.get(self.path.split("?")[0]) or Page(b"nothing here", status=404)
        body, status, start = page.body, page.status, 0
        fresh = self.headers.get("If-Range") in {None, page.etag}
        if wanted and page.ranges and fresh and status == 200:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            status = 206 if start < len(body) else 416
        self.send_response(status)
        if page.location:
            self.send_header("Location", page.location)
        self.send_header("Content-Type", page.kind)
        if page.etag:
            self.send_header("ETag", page.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if page.states_length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:] if status != 416 else b""
        self.wfile.write(rest[: page.cuts.pop(0)] if page.cuts else rest)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.pages, http.asked = {}, []
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield Server(f"http://127.0.0.1:{http.server_port}", http.pages, http.asked)
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(_transfer, "PAUSE", 0.0)
    monkeypatch.setattr(_transfer, "PATIENCE", 5.0)
    with settings.override(progress=False, cache_dir=tmp_path / "cache"):
        yield


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
