"""The directory of a run, as the launcher sees it: whether it may be used, and what is written before the start."""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from configs import run_directory
from configs.errors import UsageError
from configs.plan_schema import Plan
from configs.recipes import load_recipe, save_recipe
from configs.replaced_file import replace_text
from configs.schema import Recipe

KEPT_SECTIONS: Final = ("model", "data", "optimizer")
"""Parts of a recipe that one run cannot change on the way."""
LOCK: Final = ".lock"
"""In the run directory: held by the launcher that trains there."""
NO_LOCKS: Final = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Of file systems that have none, as some of clusters."""


class Launch(BaseModel):
    """`launch.json`: how the run was started last."""

    model_config = ConfigDict(frozen=True)

    command: tuple[str, ...]
    environment: dict[str, str]
    """What the launcher added to its own."""
    data_root: Path
    version: str
    index_dir: Path | None


def has_checkpoints(run_dir: Path) -> bool:
    """Training has been saved there."""
    return any((run_dir / run_directory.CHECKPOINTS).glob("step_*"))


def saved_recipe(run_dir: Path) -> Path | None:
    """The recipe of an earlier start of the run."""
    path = run_dir / run_directory.RECIPE
    return path if path.is_file() else None


def saved_launch(run_dir: Path) -> Launch | None:
    """How the run was started before. Raises `UsageError` where the file is damaged."""
    path = run_dir / run_directory.LAUNCH
    if not path.is_file():
        return None
    try:
        return Launch(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({error})", fix="remove it, and name the data set again") from error


def check_run(run_dir: Path, resume: str) -> None:
    """Raise `UsageError` where starting would mix two runs in one directory."""
    if not has_checkpoints(run_dir) or resume == "auto":
        return
    if resume == "none":
        raise UsageError(
            f"{run_dir} holds the checkpoints of an earlier run",
            fix="--resume auto goes on with it, --run NAME starts another beside it",
        )
    if run_dir not in Path(resume).parents and Path(resume) != run_dir:
        raise UsageError(
            f"--resume {resume}: {run_dir} holds checkpoints of its own", fix="start another run with --run NAME"
        )


@contextmanager
def alone_in(run_dir: Path) -> Iterator[None]:
    """Keep a second launcher of this machine out of a run directory, as long as the file system can.

    Raises:
        UsageError: another one trains there.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / LOCK).open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another `train` is at work in {run_dir}",
                fix="wait for it, or start another run beside it with --run NAME",
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield


def check_recipe(run_dir: Path, recipe: Recipe) -> None:
    """Raise `UsageError` where a run with checkpoints was trained with another model, data or optimiser."""
    saved = saved_recipe(run_dir)
    if saved is None or not has_checkpoints(run_dir):
        return
    before = load_recipe(str(saved)).model_dump(mode="json")
    now = recipe.model_dump(mode="json")
    for section in KEPT_SECTIONS:
        difference = _first_difference(before[section], now[section], section)
        if difference:
            raise UsageError(
                f"{run_dir} was trained with another recipe: {difference}",
                fix="leave out --config and --set to go on with the run's own recipe, or start another with --run NAME",
            )


def write_run(run_dir: Path, recipe: Recipe, plan: Plan, launch: Launch) -> None:
    """Make the directory and write recipe, plan and how the run was started. A reader sees old files or new ones."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / run_directory.OUTCOME).unlink(missing_ok=True)
    save_recipe(recipe, run_dir / run_directory.RECIPE)
    replace_text(run_dir / run_directory.PLAN, plan.model_dump_json(indent=2) + "\n")
    replace_text(run_dir / run_directory.LAUNCH, launch.model_dump_json(indent=2) + "\n")


def _first_difference(before: Any, now: Any, place: str) -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        found = (_first_difference(before.get(key), now.get(key), f"{place}.{key}") for key in {**before, **now})
        return next((difference for difference in found if difference), None)
    return None if before == now else f"{place} was {before!r}, is {now!r}"
