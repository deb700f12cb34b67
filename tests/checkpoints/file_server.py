"""A loopback server of one file that does what download servers do, and what they should not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Served:
    """What is served, and how badly; `ranges` notes what was asked for."""

    content: bytes
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the connection ends, for each request in turn; then answers are whole."""
    answers: list[int] = field(default_factory=list)
    """Status codes of the first requests, instead of the file."""
    knows_ranges: bool = True
    marks: bool = True
    ranges: list[str | None] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(served: Served) -> Iterator[Served]:
    """`served.address` answers within the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            served.ranges.append(asked)
            if served.answers:
                self.send_error(served.answers.pop(0))
                return
            first = self._first(asked)
            if first is None:
                self.send_error(416)
                return
            rest = served.content[first:]
            self.send_response(206 if first else 200)
            if served.marks:
                self.send_header("ETag", etag())
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(served.content) - 1}/{len(served.content)}")
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: served.cut_after.pop(0)] if served.cut_after else rest)

        def _first(self, asked: str | None) -> int | None:
            """The byte to begin with; `None` where there is none."""
            if not (asked and served.knows_ranges) or self.headers.get("If-Range") != etag():
                return 0
            found = re.fullmatch(r"bytes=(\d+)-", asked)
            assert found
            return int(found[1]) if int(found[1]) < len(served.content) else None

        def log_message(self, *arguments: object) -> None:
            pass

    def etag() -> str:
        return f'"{hashlib.md5(served.content).hexdigest()}"'

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}/file.pth?download=true"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
