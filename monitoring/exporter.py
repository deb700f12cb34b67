"""`monitor --serve`: /metrics for Prometheus (OpenMetrics where it asks for it), /view for other monitors, /health."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

import click
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from configs.errors import UsageError
from monitoring.series import ViewCollector
from monitoring.watcher import VIEW_PATH, Watcher

STALE: Final = 5
"""Intervals without a look after which the exporter calls itself unhealthy."""
LEAST_STALE: Final = 10.0


class Exporter:
    """Looks every `interval` seconds and serves the newest view; scrapes cost no look.

    Raises:
        UsageError: the address cannot be served on.
    """

    def __init__(self, watcher: Watcher, host: str, port: int, interval: float) -> None:
        self.watcher = watcher
        self.interval = interval
        self._series = ViewCollector()
        registry = CollectorRegistry()
        registry.register(self._series)
        self._metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
        self._looked = 0.0
        self._stop = threading.Event()
        try:
            self._server = make_server(host, port, self._answer, ThreadingWSGIServer, _QuietHandler)
        except OSError as error:
            raise UsageError(
                f"monitor --serve: {host}:{port}: {error.strerror}",
                fix="another monitor serves there already, or the address is not this machine's: --port, --host",
            ) from error
        self.port = self._server.server_port
        self.address = f"http://{host}:{self.port}"

    def start(self) -> None:
        """Look once, then serve and look in threads."""
        self._look()
        threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True).start()
        threading.Thread(target=self._watch, name="looks", daemon=True).start()

    def close(self) -> None:
        """No more answers."""
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self._look()

    def _look(self) -> None:
        self._series.view = self.watcher.look()
        self._looked = time.monotonic()

    def _answer(self, environment: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        path = environment.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environment, respond)
        if path == VIEW_PATH and self._series.view is not None:
            return _text(respond, "200 OK", self._series.view.model_dump_json(), "application/json")
        if path == "/health":
            fresh = time.monotonic() - self._looked < max(LEAST_STALE, STALE * self.interval)
            return _text(respond, "200 OK" if fresh else "503 Stale", "ok\n" if fresh else "no look for a while\n")
        return _text(respond, "404 Not Found", "/metrics, /view, /health\n")


def serve_forever(watcher: Watcher, host: str, port: int, interval: float) -> None:
    """Serve until interrupted."""
    exporter = Exporter(watcher, host, port, interval)
    exporter.start()
    click.echo(f"serving {exporter.address}/metrics; Ctrl-C ends it")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        exporter.close()


class _QuietHandler(WSGIRequestHandler):
    """Says nothing of every request."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Not a word."""


def _text(respond: Callable[..., Any], status: str, text: str, kind: str = "text/plain") -> list[bytes]:
    respond(status, [("Content-Type", f"{kind}; charset=utf-8")])
    return [text.encode()]
