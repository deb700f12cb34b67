"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """Works, with a limit that the user should know."""
    FAIL = "fail"
    """A documented command will not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and the fix where something is wrong."""

    check: str
    level: Level
    detail: str
    fix: str = ""


def ok(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, detail)


def warn(check: str, detail: str, fix: str) -> Finding:
    """A limit."""
    return Finding(check, Level.WARN, detail, fix)


def fail(check: str, detail: str, fix: str) -> Finding:
    """Something does not work."""
    return Finding(check, Level.FAIL, detail, fix)
