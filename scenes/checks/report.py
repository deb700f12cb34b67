"""What a check found: faults, grouped, each with its count and first examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict

EXAMPLES: Final = 5


class Fault(BaseModel):
    """One kind of fault at one place."""

    model_config = ConfigDict(frozen=True)

    kind: str
    """a stable word for scripts, such as `missing-file`"""
    where: str
    """table, table and field, split, or group of files"""
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()


class RecipeNeed(BaseModel):
    """Whether the files for a family of recipes are there, and what to get otherwise."""

    model_config = ConfigDict(frozen=True)

    family: str
    groups: tuple[str, ...]
    """groups of files it reads"""
    absent: tuple[str, ...]
    """groups of which the tables name no file"""
    missing_files: int
    damaged_files: int
    scenes_with_gaps: int
    get: tuple[str, ...]
    """archives or the command that bring what is missing; empty when all is there"""


class CheckReport(BaseModel):
    """The result of `check_dataset`."""

    model_config = ConfigDict(frozen=True)

    dataroot: str
    version: str
    recipe: str | None
    deep: bool
    counts: dict[str, int]
    """records of each table that could be read"""
    splits: dict[str, int]
    """samples of each split"""
    files_checked: int
    faults: tuple[Fault, ...]
    needs: tuple[RecipeNeed, ...]

    @property
    def exit_code(self) -> int:
        """0 without a fault, 1 with any."""
        return 1 if self.faults else 0


@dataclass(slots=True)
class FaultBook:
    """Collects faults."""

    faults: list[Fault] = field(default_factory=list)

    def add(self, kind: str, where: str, message: str, examples: Sequence[str] = (), count: int | None = None) -> None:
        """One fault; `count` defaults to the number of examples, or 1."""
        shown = tuple(examples[:EXAMPLES])
        self.faults.append(
            Fault(kind=kind, where=where, message=message, count=count or max(len(examples), 1), examples=shown)
        )

    def add_any(self, kind: str, where: str, message: str, examples: Iterable[str]) -> None:
        """One fault for all `examples`, nothing when there are none."""
        found = list(examples)
        if found:
            self.add(kind, where, message, found)
