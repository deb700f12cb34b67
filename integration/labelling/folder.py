"""Where labels are kept, and what they were made with: an ended run goes on, one of other options is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from configs.errors import UsageError
from configs.replaced_file import replace_text
from integration.labelling.records import SceneLabels, read_scene

MADE_WITH: Final = "labels.json"


class LabelFolder:
    """The layout of `--out`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made_with = root / MADE_WITH
        self.scenes = root / "scenes"
        self.coco = root / "coco"
        self.panoptic = self.coco / "panoptic"
        self.nuimages = root / "nuimages"
        self.page = root / "index.html"

    def scene_file(self, token: str) -> Path:
        """Written last of all that belongs to a scene, so its presence says that the scene is done."""
        return self.scenes / f"{token}.json"

    def has(self, token: str) -> bool:
        """The scene is done. Raises `DataError` for a damaged file."""
        if not self.scene_file(token).exists():
            return False
        read_scene(self.scene_file(token))  # better found now than when all others are labelled
        return True

    def claim(self, made_with: Mapping[str, Any]) -> None:
        """Take the folder for labels made so; it may hold some of them already.

        Raises:
            UsageError: it holds other things, or labels made otherwise.
        """
        if not self.made_with.exists():
            if self.root.exists() and any(not item.name.startswith(".") for item in self.root.iterdir()):
                raise UsageError(
                    f"--out {self.root} is not empty, and what it holds are no labels ({MADE_WITH} is missing)",
                    fix="name a new folder",
                )
            replace_text(self.made_with, json.dumps(made_with, indent=2) + "\n")
            return
        try:
            before: dict[str, Any] = dict(json.loads(self.made_with.read_bytes()))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.made_with} is damaged: {error}", fix="name a new folder with --out") from error
        other = [
            f"{name} {before.get(name)!r} there, {made_with.get(name)!r} now"
            for name in {**made_with, **before}
            if before.get(name) != made_with.get(name)
        ]
        if other:
            raise UsageError(
                f"--out {self.root} holds labels that were made otherwise: {'; '.join(other)}",
                fix="name a new folder, or give the options of before to go on there",
            )

    def read(self, tokens: Iterable[str]) -> Iterator[SceneLabels]:
        """The labels of some scenes, one after the other. Raises `DataError` for a damaged file."""
        for token in tokens:
            yield read_scene(self.scene_file(token))
