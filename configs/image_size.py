"""The size of an image on the command line."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from configs.errors import UsageError

_FORM: Final = re.compile(r"([1-9]\d*)x([1-9]\d*)", re.IGNORECASE)


class ImageSize(click.ParamType):  # type: ignore[type-arg]  # older versions of click have no argument there
    """An option for a size: `1600x900` becomes (900, 1600), height and width."""

    name = "image size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Height and width. Raises `UsageError` for anything else than WIDTHxHEIGHT."""
        del ctx
        found = _FORM.fullmatch(value)
        if found is None:
            option = "the size" if param is None else param.opts[0]
            raise UsageError(f"{option} {value!r} is not WIDTHxHEIGHT", fix="write it like 1600x900")
        return int(found[2]), int(found[1])
