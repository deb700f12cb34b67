"""`monitor`: its options and help."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from configs.errors import UsageError

PORT = 9400


class FiniteRange(click.FloatRange):
    """A range that `nan` is not in: it compares as neither too small nor too large."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As any range; `nan` is refused."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number", param, ctx)
        return float(number)


@click.command("monitor")
@click.argument("places", nargs=-1, metavar="[RUN | http://HOST:PORT]...")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("outputs"),
    show_default=True,
    metavar="DIR",
    help="Where runs are looked for when none is named: those that are being written, else the newest.",
)
@click.option("--interval", type=FiniteRange(0.25, 3600), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look once, print, and stop.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a look on standard output, nothing else.")
@click.option("--serve", is_flag=True, help="Export to Prometheus instead: /metrics, /view (JSON), /health.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to serve on.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port to serve on.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "nvml", "npu-smi", "host"]),
    default="auto",
    show_default=True,
    help="Who to ask about accelerators. npu-smi is untested on hardware.",
)
def monitor(
    places: tuple[str, ...],
    output_dir: Path,
    interval: float,
    once: bool,
    as_json: bool,
    serve: bool,
    host: str,
    port: int,
    backend: str,
) -> None:
    """What GPUs and runs are doing, and what limits them: live, once, as JSON, or for Prometheus.

    Without arguments it shows this machine and the runs in --output-dir that are being written. A run in a container
    or on another machine is named by its directory, if that is mounted here, or by the address of the monitor that
    serves there. Nothing is written; any number of monitors may look at the same run.

    \b
    bevnext-sam2 monitor
    bevnext-sam2 monitor outputs/my-run outputs/other-run
    bevnext-sam2 monitor --once --json
    bevnext-sam2 monitor --serve --port 9400          (then, elsewhere:  monitor http://server:9400)

    Exit codes: 0 done, 2 bad option or directory, 1 --once and no answer from the address, or anything else.
    """
    from monitoring.watcher import open_watcher

    if serve and (once or as_json):
        raise UsageError("monitor: --serve goes neither with --once nor with --json", fix="leave them out")
    watcher = open_watcher(places, output_dir, backend)  # type: ignore[arg-type]  # click checks the choice
    try:
        if serve:
            from monitoring.exporter import serve_forever

            serve_forever(watcher, host, port, interval)
        else:
            from monitoring.live import show

            show(watcher, interval, once=once, as_json=as_json)
    finally:
        watcher.close()
