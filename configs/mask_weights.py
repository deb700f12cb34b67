"""Which weights of SAM 2 a command takes where none, or only their name, are given. Nothing is loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from configs.errors import UsageError
from configs.published_weights import converted_file, published_files

NANO: Final = "sam2_hiera_nano"
NANO_FOLDER: Final = "sam2-nano"
"""Where `sam2 train` writes, within the folder of outputs."""
NANO_FILE: Final = "sam2.safetensors"
NANO_WEIGHTS: Final = Path("outputs") / NANO_FOLDER / NANO_FILE
PREFERRED: Final = (
    *("sam2.1-hiera-tiny", "sam2.1-hiera-small", "sam2.1-hiera-base-plus", "sam2.1-hiera-large"),
    *("sam2-hiera-tiny", "sam2-hiera-small", "sam2-hiera-base-plus", "sam2-hiera-large"),
)
"""Published weights, in the order in which fetched ones are looked for: the cheapest of the newer ones first."""


@dataclass(frozen=True, slots=True)
class MaskWeights:
    """Weights of SAM 2, and the configuration they belong to."""

    weights: str
    """A name of `checkpoints list`, or a file."""
    config: str

    @property
    def is_nano(self) -> bool:
        """The small ones of `sam2 train`, by default of the synthetic set alone."""
        return self.config == NANO

    def line(self) -> str:
        """What they are, for the user."""
        kind = "nano; by default trained on the synthetic set alone" if self.is_nano else f"configuration {self.config}"
        return f"SAM 2: {self.weights} ({kind})"


def choose_mask_weights(weights: str | None, config: str | None, nano: Path = NANO_WEIGHTS) -> MaskWeights:
    """As `find_mask_weights`. Raises `UsageError` where there are none: they are never replaced by random ones."""
    found = find_mask_weights(weights, config, nano)
    if found is None:
        raise UsageError(
            "there are no weights of SAM 2 here: no published ones were fetched, and "
            f"{nano} is not there (masks are never made up)",
            fix="bevnext-sam2 checkpoints fetch sam2.1-hiera-tiny; or, without a network, bevnext-sam2 sam2 train "
            f"--out {nano.parent} (on the synthetic set, about 9 minutes on two cores; `demo --make-weights` does it)",
        )
    return found


def find_mask_weights(weights: str | None, config: str | None, nano: Path = NANO_WEIGHTS) -> MaskWeights | None:
    """The weights of the options, else published ones that were fetched, else those that `sam2 train` made, if any.

    Args:
        config: SAM 2 configuration. Default: the one that the weights belong to; that of a file which is not a
            published one is `sam2_hiera_nano`.
    """
    found = weights or fetched_weights() or (nano if nano.is_file() else None)
    return None if found is None else MaskWeights(str(found), config or config_of(str(found)))


def config_of(weights: str) -> str:
    """The configuration of published weights, by their name or the name of their file; nano for any other file."""
    for name, entry in published_files().items():
        if entry.fits == "segmenter" and weights.rsplit("/", 1)[-1] in (
            name,
            entry.file_name,
            converted_file(name).name,
        ):
            return entry.recipe.removeprefix("sam2/")
    return NANO


def fetched_weights() -> Path | None:
    """The file of published weights that were fetched, the first of `PREFERRED`."""
    return next((converted_file(name) for name in PREFERRED if converted_file(name).is_file()), None)
