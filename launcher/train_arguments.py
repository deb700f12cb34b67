"""A request as the options that make it again, for the command line of a job."""

from __future__ import annotations

from typing import Any

import click

from launcher.options import TrainRequest, train_options


def train_arguments(request: TrainRequest) -> list[str]:
    """The options of `train` that mean `request`; what has its default is left out."""
    default, arguments = TrainRequest(), []
    for option in _options():
        name = option.name or ""
        value = getattr(request, name)
        if value == getattr(default, name):
            continue
        word = next(text for text in option.opts if text.startswith("--"))
        if option.is_flag:
            arguments.append(word if value else option.secondary_opts[0])
        else:
            arguments += [f"{word}={_typed(name, one)}" for one in (value if option.multiple else (value,))]
    return arguments


def _options() -> list[click.Option]:
    """Every option once: `--gpu` and `--no-gpu` are other words for `--device`, which comes before them."""

    @click.command()
    @train_options
    def command(request: TrainRequest) -> None:
        del request

    by_name: dict[str | None, click.Option] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            by_name.setdefault(parameter.name, parameter)
    return list(by_name.values())


def _typed(name: str, value: Any) -> str:
    if name == "gpus":
        return ",".join(map(str, value))
    if name in ("nnodes", "profile"):
        return ":".join(str(count) for count in dict.fromkeys(value))  # a range, or one number
    return str(value)
