"""Build hook: an editable install puts this checkout in front of installed packages.

The `sam2` distribution installs a top-level package called `training`. A plain editable install appends the checkout
to the end of `sys.path`, where `import training` would find theirs; this one inserts it first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class EditableFirstHook(BuildHookInterface):  # type: ignore[misc]
    """Replace hatchling's path file by one that inserts instead of appending."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it writes a wheel; `version` is `editable` for `pip install -e`."""
        if version != "editable":
            return
        path_file = Path(tempfile.mkdtemp()) / "bevnext_sam2.pth"
        path_file.write_text(f"import sys; sys.path.insert(0, {str(Path(self.root))!r})\n")
        build_data["force_include_editable"] = {str(path_file): path_file.name}
