"""Where the index of a data set lies, so that the launcher can read its header without importing `scenes`.

The header is plain JSON; `scenes.index_files.IndexHeader` describes it. The launcher needs `counts` (scenes, samples,
sample_data, annotations) and `splits` (split name -> number of samples).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

HEADER: Final = "header.json"
INDEX_DIR_VARIABLE: Final = "BEVNEXT_SAM2_INDEX_DIR"


def index_directory(dataroot: Path | str, version: str, index_dir: Path | str | None = None) -> Path:
    """Directory of the index of `version`: `<parent>/<version>`.

    The parent is `index_dir`, else the environment variable `BEVNEXT_SAM2_INDEX_DIR`, else `<dataroot>/index`.
    """
    parent = index_dir or os.environ.get(INDEX_DIR_VARIABLE) or Path(dataroot) / "index"
    return Path(parent) / version
