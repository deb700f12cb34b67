"""Golden files of the published model: reading them, comparing with them, and the batch that they were made from.

`BEVNEXT_SAM2_GOLDEN` names another folder of the same layout. A big array is stored as every `step`-th element and
five statistics of the whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import golden_rule
import numpy as np
import pytest
import torch
from torch import Tensor

from configs.schema import (
    BevEncoderConfig,
    BevGridConfig,
    BEVNeXtConfig,
    DataConfig,
    HeadConfig,
    TemporalFusionConfig,
)
from detectors.bevnext.frames import EarlierFrames
from detectors.bevnext.model import BEVNeXt, BEVNeXtOutputs
from detectors.geometry import CameraGeometry, frame_by_frame

COPIES = Path(__file__).parents[1] / "golden" / "bevnext"
FOLDER = Path(os.environ.get("BEVNEXT_SAM2_GOLDEN", COPIES))
STRIDE = 8
largest_errors: dict[tuple[str, str], float] = {}
"""Per golden file and kind of number, the largest error seen: |a - b| / (1 + |b|), for norms |a - b| / |b|."""


class Golden:
    """One golden file."""

    def __init__(self, name: str) -> None:
        path = FOLDER / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"no {path}")
        self.name = name
        with np.load(path, allow_pickle=False) as store:
            self.arrays: dict[str, np.ndarray] = dict(store)

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def check(self, key: str, value: Tensor | np.ndarray, tolerance: float = 1e-4) -> None:
        """Assert that `value` equals the stored array: |a - b| <= tolerance * (1 + |b|)."""
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        if f"{key}__shape" in self:
            assert tuple(self[f"{key}__shape"]) == array.shape, key
        step = int(self.arrays.get(f"{key}__step", 1))
        stored = self[key].reshape(-1).astype(np.float64)
        error = np.abs(array.reshape(-1)[::step].astype(np.float64) - stored) / (1 + np.abs(stored))
        kind = "losses" if key.startswith("loss") else "values"
        self._note(kind, key, float(error.max(initial=0)), tolerance)
        if f"{key}__stats" in self:
            flat = array.astype(np.float64)
            stats = np.array([flat.mean(), flat.std(), np.abs(flat).sum() / flat.size, flat.min(), flat.max()])
            stored = self[f"{key}__stats"] / [1, 1, flat.size, 1, 1]
            error = np.abs(stats - stored) / (1 + np.abs(stored))
            self._note("values", f"{key}__stats", float(error.max()), tolerance)

    def check_norms(
        self,
        key: str,
        values: Mapping[str, float],
        names: str,
        limits: Mapping[float, float] = MappingProxyType({1.0: 1e-3}),
        vanishing: Collection[str] = (),
    ) -> None:
        """Assert that norms by name equal the stored ones: each quantile of the relative error within its limit.

        `vanishing` names have a true norm of zero and hold rounding noise; they are left out.
        """
        assert set(self[names].tolist()) == set(values)
        kept = ~np.isin(self[names], list(vanishing))
        stored = self[key][kept]
        ours = np.array([values[name] for name in self[names][kept].tolist()])
        error = np.abs(ours - stored) / np.maximum(stored, np.finfo(np.float64).tiny)
        kind = "gradient norms" if key.startswith("grad") else "buffer norms"
        worst = self[names][kept][error.argmax()]
        for quantile, limit in limits.items():
            self._note(
                kind, f"{key} ({quantile:.0%} of them, worst {worst})", float(np.quantile(error, quantile)), limit
            )

    def check_losses(self, terms: Mapping[str, Tensor], folder: str = "loss", tolerance: float = 1e-4) -> None:
        """Assert that every stored loss term of `folder` equals ours."""
        stored = [key for key in self.arrays if key.startswith(f"{folder}/") and not key.endswith("__shape")]
        assert stored
        for key in stored:
            self.check(key, terms[key.removeprefix(f"{folder}/")].double(), tolerance)

    def _note(self, kind: str, key: str, error: float, tolerance: float) -> None:
        largest_errors[self.name, kind] = max(error, largest_errors.get((self.name, kind), 0.0))
        assert error <= tolerance, f"{self.name}: {key} is off by {error:.3g}"


def published_state(stage: int = 1) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict."""
    shapes: dict[str, list[int]] = json.loads((COPIES / f"bevnext_stage{stage}_state.json").read_text())
    return {name: tuple(shape) for name, shape in shapes.items()}


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """State dict of the golden model."""
    return {name: torch.from_numpy(golden_rule.parameter(name, shape)) for name, shape in shapes.items()}


STAGE_2 = BEVNeXtConfig(
    bev=BevGridConfig(channels=160),
    bev_encoder=BevEncoderConfig(fusion=TemporalFusionConfig(), stage_channels=(320, 640, 1280)),
    head=HeadConfig(velocity_weight=1.0),
)
"""The published network of stage 2, for nine frames."""


def golden_model(size: tuple[int, int], stage: int = 1) -> BEVNeXt:
    """The published model for images of `size`, with the golden weights, in eval mode."""
    config, frames = (BEVNeXtConfig(), 1) if stage == 1 else (STAGE_2, 9)
    model = BEVNeXt(config, DataConfig(image_size=size, frames=frames))
    model.load_state_dict(weights(published_state(stage)))
    return model.eval()


def golden_batch(
    golden: Golden, tag: str, size: tuple[int, int], batch: int = 2, frames: int = 1
) -> tuple[SimpleNamespace, Tensor]:
    """The batch (with stored matrices and boxes where the file has them), and normalised images `[T*B*6, 3, H, W]`."""
    drawn, rig = golden_rule.inputs(batch, tag, size, frames), golden_rule.cameras(batch, size, frames)
    matrices = {}
    for name, array in vars(rig).items():
        stored = golden.arrays.get(f"in/{name}", array)
        matrices[name] = torch.from_numpy(stored.reshape(array.shape))
    objects = golden_rule.boxes(batch, tag)
    canvas = torch.from_numpy(drawn.canvas).permute(0, 1, 4, 2, 3)[:, None]
    return SimpleNamespace(
        images=canvas.expand(-1, frames, -1, -1, -1, -1),
        img_from_cam=affine(matrices["intrins"]),
        ego_from_cam=affine(matrices["rots"], matrices["trans"]),
        canvas_from_img=affine(matrices["post_rots"], matrices["post_trans"]),
        bev_from_ego=affine(matrices["bda"]),
        depth=nearest_per_patch(torch.from_numpy(drawn.depth)),
        boxes=[torch.from_numpy(box) for box, _ in objects],
        labels=[torch.from_numpy(label) for _, label in objects],
    ), frame_by_frame(torch.from_numpy(drawn.images)).flatten(0, 1)


def run(model: BEVNeXt, batch: SimpleNamespace, images: Tensor) -> BEVNeXtOutputs:
    """Raw outputs for images that are normalised already."""
    key, earlier = images.split([len(images) // model.frames, len(images) - len(images) // model.frames])
    features, history = model.image_features(key), None
    if model.frames > 1:
        history = EarlierFrames(model.earlier_features(earlier), CameraGeometry.of_earlier_frames(batch))
    canvas = batch.images[:, 0].flatten(0, 1)
    return model.detect(features, canvas, CameraGeometry.of_key_frame(batch), history)


def affine(rotation: Tensor, translation: Tensor | None = None) -> Tensor:
    """4x4 transforms from `[..., 3, 3]` and `[..., 3]`."""
    out = torch.eye(4).repeat(*rotation.shape[:-2], 1, 1)
    out[..., :3, :3] = rotation
    if translation is not None:
        out[..., :3, 3] = translation
    return out


def nearest_per_patch(depth: Tensor) -> Tensor:
    """Nearest known depth of each 8x8 patch, 0 where none: `[B, N, H, W]` to `[B, N, h, w]`."""
    patches = depth.unflatten(3, (-1, STRIDE)).unflatten(2, (-1, STRIDE))
    nearest = patches.where(patches > 0, torch.inf).amin((3, 5))
    return nearest.where(nearest.isfinite(), 0.0)
