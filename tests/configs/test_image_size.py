"""A size on the command line is width times height; in the program height comes first."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from configs.errors import UsageError
from configs.image_size import ImageSize


@click.command()
@click.option("--size", type=ImageSize(), default="16x9")
def show(size: tuple[int, int]) -> None:
    click.echo(size)


@pytest.mark.parametrize(
    ("given", "meant"), [([], "(9, 16)"), (["--size", "1600x900"], "(900, 1600)"), (["--size", "4X2"], "(2, 4)")]
)
def test_width_times_height(given: list[str], meant: str) -> None:
    assert CliRunner().invoke(show, given).output.strip() == meant


@pytest.mark.parametrize("wrong", ["large", "16", "16x", "0x9", "-1x9", "1.5x9", "16x9x3", ""])
def test_anything_else_is_named_with_its_option(wrong: str) -> None:
    with pytest.raises(UsageError, match=f"--size {wrong!r} is not WIDTHxHEIGHT"):
        CliRunner().invoke(show, ["--size", wrong], catch_exceptions=False)
