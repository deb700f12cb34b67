"""The parity figures, at the end of a run."""

from __future__ import annotations

import goldens
import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if goldens.largest_errors:
        terminalreporter.section("largest error per golden file")
        for (name, kind), error in sorted(goldens.largest_errors.items()):
            terminalreporter.line(f"{name:20} {kind:15} {error:.1e}")
