"""The time left follows the run, not its newest line."""

from __future__ import annotations

import pytest

from training.pace import LINES, Pace


def test_the_first_line_counts_only_while_it_is_alone() -> None:
    pace = Pace()
    assert pace.of_step(1, 30.0) == 30.0
    assert pace.of_step(9, 9.0) == 1.0


def test_one_hiccup_is_no_new_pace() -> None:
    pace = Pace()
    for _ in range(LINES):
        pace.of_step(10, 10.0)
    assert pace.of_step(10, 40.0) == pytest.approx(1.0 + 30 / (10 * LINES))
    for _ in range(LINES):
        slower = pace.of_step(10, 20.0)
    assert slower == 2.0  # and what was before is forgotten


def test_evaluations_to_come_cost_what_those_before_have_cost() -> None:
    pace = Pace()
    pace.of_step(1, 1.0)
    pace.of_step(99, 99.0)
    pace.aside += 50.0
    assert pace.of_step(100, 100.0) == pytest.approx(1.25)
