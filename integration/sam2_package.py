"""SAM 2 out of the `sam2` package, without Hydra: a configuration file names the classes and their arguments.

Hydra keeps global state, which breaks in programs that use it too. Here a file is read with OmegaConf and put together
directly, and only classes of `sam2` itself are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from torch import nn

from configs.errors import UsageError

NANO: Final = "sam2_hiera_nano"
OWN_FOLDER: Final = Path(__file__).resolve().parent.parent / "configs" / "sam2"

# What the published builder adds for inference: an unstable single mask gives way to the best of the three others.
STABILITY_FALLBACK: Final = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


def require_sam2() -> None:
    """Raises `UsageError` where the `sam2` package is not installed."""
    if find_spec("sam2") is None:
        raise UsageError(
            "the `sam2` package is not installed",
            fix="scripts/set_up.sh installs it; in an environment of your own: "
            "SAM2_BUILD_CUDA=0 pip install --no-build-isolation 'sam2==1.1.0'",
        )


def find_config(name: str | Path) -> Path:
    """The file of a configuration.

    Args:
        name: a path, or the name of a published one (`sam2_hiera_l`, `sam2.1_hiera_t`, with or without folder and
            `.yaml`), or `sam2_hiera_nano`.

    Raises:
        UsageError: no such file or configuration (those there are, are named), or no `sam2` package.
    """
    if Path(name).is_file():
        return Path(name)
    known = known_configs()
    wanted = Path(name).name.removesuffix(".yaml")
    if wanted not in known:
        raise UsageError(f"no SAM 2 configuration {str(name)!r}", fix=f"use one of {', '.join(known)}, or a file")
    return known[wanted]


def known_configs() -> dict[str, Path]:
    """Configuration files by name: the package's eight, and the project's."""
    require_sam2()
    package = Path(import_module("sam2").__path__[0]) / "configs"
    files = [*package.glob("sam2/*.yaml"), *package.glob("sam2.1/*.yaml"), *OWN_FOLDER.glob("*.yaml")]
    return {file.name.removesuffix(".yaml"): file for file in sorted(files)}


def construct_sam2(config: str | Path, changes: Mapping[str, Any] | None = None) -> nn.Module:
    """The whole published network (`sam2.modeling.sam2_base.SAM2Base`) with random weights, on the CPU.

    Args:
        changes: entries of the configuration's `model` section to set, its class (`_target_`) among them.

    With CUDA, the package puts small tables on the *current* device while it builds: choose the device of this process
    (`torch.cuda.set_device`) first, and do not build in forked processes.

    Raises:
        UsageError: the file does not describe a SAM 2.
    """
    path = find_config(config)
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        model = dict(content["model"]) | dict(changes or {})
        model["sam_mask_decoder_extra_args"] = STABILITY_FALLBACK | (model.get("sam_mask_decoder_extra_args") or {})
        network = _construct(model)
    except (OmegaConfBaseException, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{path} does not describe a SAM 2: {error}", fix="start from one of the package's configurations"
        ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{path} does not describe a SAM 2", fix="start from one of the package's configurations")
    return network


def _construct(node: Any) -> Any:
    """Objects for all sections with a `_target_`, innermost first."""
    if isinstance(node, Mapping):
        values = {key: _construct(value) for key, value in node.items()}
        target = values.pop("_target_", None)
        return values if target is None else _class_named(target)(**values)
    return [_construct(item) for item in node] if isinstance(node, list) else node


def _class_named(target: str) -> Any:
    module, _, name = target.rpartition(".")
    if not module.startswith("sam2."):
        raise ValueError(f"{target} is not a class of the sam2 package")
    return getattr(import_module(module), name)
