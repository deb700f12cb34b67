"""Our packages, the installed versions, and the data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from configs.errors import BevnextError
from launcher.dataset import DataChoice, index_problem, preparations
from launcher.doctor.finding import Finding, fail, ok, warn
from launcher.own_process import ROOT, shown

PACKAGES: Final = ("configs", "scenes", "detectors", "integration", "training", "evaluation", "monitoring", "launcher")
OPTIONAL_LOCKS: Final = ("dev", "notebook")
"""What they name may be absent: an image has no tests, and JupyterLab comes when it is asked for."""
PINNED: Final = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;\\]+)(?P<marker>\s*;)?", re.MULTILINE)


def check_packages(found: Mapping[str, str | None], root: Path = ROOT) -> Finding:
    """Every package of ours is ours: sam2 installs a `training` of its own.

    Args:
        found: package name -> file that an import would read.
    """
    strangers = {name: file for name, file in found.items() if file != str(root / name / "__init__.py")}
    if not strangers:
        return ok("packages", f"all from {root}")
    text = ", ".join(f"`{name}` is {file or 'missing'}" for name, file in strangers.items())
    return fail("packages", text, f"pip install --no-deps -e {root}; leave the folder that shadows it")


def package_files() -> dict[str, str | None]:
    """Where an import of each of our packages would read from, without importing it."""
    specs = {name: find_spec(name) for name in PACKAGES}
    return {name: None if spec is None else spec.origin for name, spec in specs.items()}


def check_versions(locks: Mapping[str, str], installed: Mapping[str, str]) -> Finding:
    """Installed versions are those of the lock files.

    Args:
        locks: name of a lock file -> its text.
        installed: normalised name -> version.
    """
    pinned: dict[str, set[str]] = {}
    needed: set[str] = set()
    for lock, match in ((lock, match) for lock, text in locks.items() for match in PINNED.finditer(text)):
        name = _normalised(match["name"])
        pinned.setdefault(name, set()).add(match["version"])
        if not match["marker"] and lock not in OPTIONAL_LOCKS:
            needed.add(name)
    if not pinned:
        return ok("versions", "no lock files beside the packages")
    # torch's builds differ in what follows the plus sign, which the set-up chooses
    drifted = [
        f"{name} {installed[name]} (locked {' or '.join(sorted(versions))})"
        for name, versions in sorted(pinned.items())
        if name in installed and installed[name].partition("+")[0] not in {one.partition("+")[0] for one in versions}
    ]
    missing = sorted(name for name in needed if name not in installed)
    if not drifted and not missing:
        return ok("versions", f"{len(pinned)} packages as locked")
    parts = [*drifted, *(f"{name} is missing" for name in missing)]
    return warn("versions", "; ".join(parts), "scripts/set_up.sh installs the locked versions")


def installed_versions() -> dict[str, str]:
    """Normalised name -> version of every installed distribution."""
    return {_normalised(found.metadata["Name"]): found.version for found in distributions()}


def lock_files(root: Path = ROOT) -> dict[str, str]:
    """Name of a lock file -> its text."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted((root / "requirements").glob("*.lock"))}


def check_data(data: DataChoice) -> Finding:
    """The data set and its index."""
    place = f"{data.root} ({data.version}{', synthetic' if data.is_synthetic else ''})"
    try:
        missing = preparations(data)
    except BevnextError as error:
        return fail("data", error.message, error.fix)
    if not missing:
        return ok("data", f"{place}, indexed")
    commands = " && ".join(shown(step.arguments) for step in missing)
    problem = missing[0].reason if len(missing) > 1 else index_problem(data)
    return warn("data", f"{place}: {problem}", f"{commands}, or `bevnext-sam2 train`, which does so")


def check_links(root: Path) -> Finding:
    """What a data root links to is there: another disk may not be mounted."""
    links = [entry for entry in sorted(root.iterdir()) if entry.is_symlink()] if root.is_dir() else []
    gone = [entry for entry in links if not entry.exists()]
    if not gone:
        return ok("data links", f"{len(links)} links lead somewhere" if links else "none")
    text = ", ".join(f"{entry.name} -> {entry.readlink()}" for entry in gone)
    return fail("data links", f"{root}: {text}: nothing is there", "mount the disk, or link to where the files are")


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
