"""Parts of a detector that keep the weights they start with (`optimizer.frozen`)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from configs.errors import UsageError


def freeze(detector: nn.Module, names: Sequence[str]) -> None:
    """Let the submodules of these names stay as they are: no gradient, statistics and dropout as in evaluation.

    Raises:
        UsageError: the detector has no part of that name.
    """
    for name in names:
        try:
            part = detector.get_submodule(name) if name else None
        except AttributeError:
            part = None
        if part is None:
            inside = ", ".join(child for child, _ in detector.named_children())
            raise UsageError(
                f"optimizer.frozen: the detector has no part {name!r}",
                fix=f"its parts are {inside}, and what is in them, such as img_backbone.layer1",
            )
        part.eval().requires_grad_(False)
