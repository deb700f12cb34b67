"""The live terminal view, and its plain forms."""

from __future__ import annotations

import signal
import time
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from configs.errors import ExitCode
from monitoring.screen import draw
from monitoring.view import View
from monitoring.watcher import Watcher

RATES_NEED: Final = 0.3
"""Seconds between the two looks that rates need, where one view is asked for."""
_NO_LIMIT: Final = 10_000


def show(watcher: Watcher, interval: float, *, once: bool, as_json: bool, console: Console | None = None) -> None:
    """Show views until interrupted, or one of them.

    Args:
        interval: seconds between looks.
        as_json: one object a line.
    """
    console = console or Console(highlight=False)
    if once:
        watcher.look()
        time.sleep(RATES_NEED)
        view = watcher.look()
        if as_json:
            click.echo(view.model_dump_json(indent=2))
        else:
            console.print(draw(view, console.width, _NO_LIMIT), soft_wrap=True)
        if view.problem is not None:
            raise SystemExit(ExitCode.CRASHED)
    elif as_json or not console.is_terminal:
        _stream(watcher, interval, console, as_json)
    else:
        _live(watcher, interval, console)


def _stream(watcher: Watcher, interval: float, console: Console, as_json: bool) -> None:
    while True:
        view = watcher.look()
        if as_json:
            click.echo(view.model_dump_json())
        else:
            console.print(draw(view, console.width, _NO_LIMIT), soft_wrap=True)
        time.sleep(interval)


def _live(watcher: Watcher, interval: float, console: Console) -> None:
    def picture(view: View) -> object:
        return draw(view, console.width, console.height)

    # ended by another program, too, it leaves the terminal as it was
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                begun = time.monotonic()
                live.update(picture(watcher.look()), refresh=True)  # type: ignore[arg-type]
                time.sleep(max(0.0, interval - (time.monotonic() - begun)))
    except KeyboardInterrupt:  # the usual way out
        return
    finally:
        signal.signal(signal.SIGTERM, before)
