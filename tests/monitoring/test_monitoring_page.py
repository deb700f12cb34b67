"""The documentation page explains every figure with the unit and the meaning that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitoring.fields import DEVICE, HOST

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()


@pytest.mark.parametrize("figure", [*DEVICE.values(), *HOST.values()], ids=lambda figure: figure.name)
def test_every_figure_is_explained(figure: object) -> None:
    name, unit, what, good = (getattr(figure, key) for key in ("name", "unit", "what", "good"))
    assert f"| `{name}` | {unit} | {what} | {good} |" in PAGE


def test_the_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(code, "docs/monitoring.md", "exec"), {})
