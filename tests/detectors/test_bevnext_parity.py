"""Forward pass, losses and gradients of both stages of BEVNeXt against the published model."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from goldens import Golden, golden_batch, golden_model, run
from torch import Tensor

from detectors.bevnext.grid import DepthBins
from detectors.bevnext.losses import depth_bins
from detectors.bevnext.model import BEVNeXt
from detectors.bevnext.projection import project_anchors
from detectors.geometry import CameraGeometry

pytestmark = pytest.mark.parity

MAPS_OF_MODULE = {
    "img_neck": "img_neck",
    "img_view_transformer.depth_net.bn": "mlp_input_bn",
    "img_view_transformer.depth_net.reduce_conv": "depth_net.reduce_conv",
    "img_view_transformer.depth_net.context_se": "depth_net.context_se",
    "img_view_transformer.depth_net.depth_se": "depth_net.depth_se",
    "img_view_transformer.depth_net.context_conv.0": "depth_net.dcn",
    "img_view_transformer.depth_net.depth_conv.4": "depth_net.logits",
    "img_view_transformer.depth_net.context_conv.3": "depth_net.context",
    "img_view_transformer.crf": "crf_depth_prob",
    "pre_process_net.layers.0": "pre_process",
    "img_bev_encoder_backbone.layers.0": "bev_backbone.0",
    "img_bev_encoder_backbone.layers.1": "bev_backbone.1",
    "img_bev_encoder_backbone.layers.2": "bev_backbone.2",
    "img_bev_encoder_neck": "bev_neck",
    "depth_emb": "depth_emb",
    "transformer_neck.shared_conv": "transformer_neck.shared_conv",
    "transformer_neck.decoder.layers.0.attentions.0": "spatial_cross_attention",
    "transformer_neck.decoder": "transformer_neck",
}
STAGE_2_MODULES = {
    "img_bev_encoder_backbone.fusion_layer": "res2fusion.fusion_layer",
}


@dataclass(frozen=True)
class Case:
    """One golden file of a whole model."""

    name: str
    tag: str
    size: tuple[int, int]
    stage: int
    samples: int

    @property
    def frames(self) -> int:
        return 1 if self.stage == 1 else 9

    def open(self) -> tuple[Golden, BEVNeXt, SimpleNamespace, Tensor]:
        golden = Golden(self.name)
        return (
            golden,
            golden_model(self.size, self.stage),
            *golden_batch(golden, self.tag, self.size, self.samples, self.frames),
        )


SMALL = [
    Case("stage1_small", "stage1small", (64, 176), stage=1, samples=2),
    Case("stage2_small", "stage2small", (64, 176), stage=2, samples=1),
]
FULL = [
    Case("stage1_full", "stage1", (256, 704), stage=1, samples=2),
    Case("stage2_full", "stage2", (256, 704), stage=2, samples=1),
]
CASES = pytest.mark.parametrize(
    "case", [*SMALL, *(pytest.param(case, marks=pytest.mark.slow) for case in FULL)], ids=lambda case: case.name
)


def keep_maps(model: BEVNeXt, case: Case) -> dict[str, list[Tensor]]:
    """What the modules above give for the key frame, then for the earlier ones, filled in by the next pass."""
    maps: dict[str, list[Tensor]] = {}

    def keep(key: str, out: Tensor) -> None:
        maps.setdefault(key, []).append(out.detach().clone())

    for module, key in (MAPS_OF_MODULE | (STAGE_2_MODULES if case.stage == 2 else {})).items():
        model.get_submodule(module).register_forward_hook(lambda _module, _args, out, key=key: keep(key, out))

    def keep_levels(_module, _args, levels):
        for i, level in enumerate(levels, start=3):
            keep(f"img_backbone.c{i}", level)

    model.img_backbone.register_forward_hook(keep_levels)
    model.img_view_transformer.register_forward_hook(
        lambda _module, _args, lifted: keep("view_transformer_bev", lifted.bev)
    )
    return maps


def check_maps(golden: Golden, maps: dict[str, list[Tensor]], frames: int) -> None:
    """The key frame's maps, and those of the frame before it where the file has them."""
    for key, (of_key_frame, *earlier) in maps.items():
        name, _, part = key.partition(".")
        numbered = {f"out/{key}#{t}" for t in (0, 1)} | {f"out/{name}#{t}.{part}" for t in (0, 1)}
        assert f"out/{key}" in golden or numbered & golden.arrays.keys(), key
        before = [maps_of.chunk(frames - 1)[0] for maps_of in earlier]
        for t, value in enumerate([of_key_frame, *before]):
            names = [f"out/{key}"] * (t == 0) + [f"out/{key}#{t}", f"out/{name}#{t}.{part}"]
            for stored in names:
                if stored in golden:
                    golden.check(stored, value)


@CASES
def test_model(case):
    golden, model, batch, images = case.open()
    maps = keep_maps(model, case)
    with torch.set_grad_enabled("grad/l2" in golden):
        outputs = run(model, batch, images)
    check_maps(golden, maps, case.frames)
    for t, (heatmap, boxes) in enumerate(zip(outputs.heatmaps, outputs.boxes, strict=True)):
        golden.check(f"out/heatmap_logits.task{t}", heatmap)
        for key, part in zip(("reg", "height", "dim", "rot", "vel"), boxes.split([2, 1, 3, 2, 2], 1), strict=True):
            golden.check(f"out/head.task{t}.{key}", part)

    terms = model.loss(outputs, model.targets(batch))
    golden.check_losses(terms)
    if "grad/l2" not in golden:
        return
    sum(terms.values()).backward()
    norms = {key: float(value.grad.double().norm()) for key, value in model.named_parameters()}
    golden.check_norms("grad/l2", norms, "grad/names")
    golden.check("grad/full/img_view_transformer.crf.ws.0", model.img_view_transformer.crf.ws[0].grad, 1e-3)


@CASES
def test_geometry(case):
    golden, model, batch, _ = case.open()
    geometry = CameraGeometry.of_key_frame(batch)
    features = (case.size[0] // 8, case.size[1] // 8)
    golden.check("out/mlp_input#0", geometry.vector(), 1e-6)

    points = torch.stack(model.img_view_transformer.frustum_points(geometry, features), -1)
    golden.check("out/lidar_coor#0", points.permute(0, 1, 4, 2, 3, 5), 1e-6)
    cells = model.img_view_transformer.frustum_cells(geometry, features)
    count = cells.flatten().bincount(minlength=case.samples * 128 * 128 + 1)[:-1].numpy()
    np.testing.assert_array_equal(golden["out/bevpool_cell_counts#0"].reshape(-1), count)
    ranks = count.nonzero()[0]
    np.testing.assert_array_equal(
        golden["out/bevpool_counts#0"], [count.sum(), len(ranks), count.max(), ranks.min(), ranks.max()]
    )

    anchors = project_anchors(geometry, model.grid, 8, case.size)
    golden.check("out/sca_ref_cam", anchors.locations.transpose(0, 1), 1e-4)
    golden.check("out/sca_mask", anchors.visible.transpose(0, 1).to(torch.uint8), 1e-12)


@CASES
def test_depth_bins(case):
    golden, _, batch, _ = case.open()
    golden.check("out/gt_depth_bins", depth_bins(batch.depth.flatten(0, 1), DepthBins(1.0, 0.5, 118)), 1e-6)


ROUNDING = (
    "losses are 2.6e-4 off, not 1e-4, and gradient norms at the 95 % quantile 1.06 %, not 1 %: images that are changed "
    "by an ulp move ours by 3e-4 and 1.2 % (docs/bevnext.md)"
)


@pytest.mark.parametrize(
    "case",
    [
        Case("stage1_small_train", "train1", (64, 176), stage=1, samples=2),
        pytest.param(Case("stage2_small_train", "train2", (64, 176), stage=2, samples=2), marks=pytest.mark.slow),
    ],
    ids=lambda case: case.name,
)
def test_train_mode_statistics(case, request):
    """Batch statistics, dropout off: losses, running statistics after forward and after backward, gradients."""
    golden, model, batch, images = case.open()
    model.train()
    model.img_view_transformer.depth_net.depth_conv[3].dropout.p = 0.0
    outputs = run(model, batch, images)
    terms = model.loss(outputs, model.targets(batch))

    def norms(running_only: bool) -> dict[str, float]:
        return {
            key: float(value.double().norm())
            for key, value in model.named_buffers()
            if not running_only or "running" in key
        }

    after_forward = norms(running_only=True)
    golden.arrays["running names"] = np.array([key for key in golden["bn/names"] if "running" in key])
    golden.check_norms("bn_after_forward/l2", after_forward, "running names")
    sum(terms.values()).backward()
    golden.check_norms("bn/l2_after_backward", norms(running_only=False), "bn/names")
    # With batch statistics these gradients are ill-conditioned: in float64 the network is within 1.4 % of the stored
    # float32 norms (median 0.09 %). Two biases in front of a batch normalisation have a true gradient of zero.
    gradients = {key: float(value.grad.double().norm()) for key, value in model.named_parameters()}
    vanishing = ("depth_emb.0.bias", "img_view_transformer.depth_net.reduce_conv.0.bias")
    if case.stage == 2:
        # A guard against anything worse than what is known; it is not parity. That is the check below.
        golden.check_losses(terms, tolerance=6e-4)
        golden.check_norms("grad/l2", gradients, "grad/names", {0.5: 0.002, 0.95: 0.015, 1.0: 0.25}, vanishing)
        request.applymarker(pytest.mark.xfail(strict=True, reason=ROUNDING))
    golden.check_losses(terms, tolerance=1e-4)
    golden.check_norms("grad/l2", gradients, "grad/names", {0.5: 0.002, 0.95: 0.01, 1.0: 0.25}, vanishing)
