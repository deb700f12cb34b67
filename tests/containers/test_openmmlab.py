"""The image target `openmmlab`: compiled operators are used, every part is imported, and the platform still works."""

from __future__ import annotations

import os
import subprocess

import pytest
from containers import BASE_IMAGE, build_image, docker

pytestmark = [pytest.mark.container, pytest.mark.slow, pytest.mark.timeout(7200)]
IMAGE = "bevnext-sam2-test:openmmlab"
IN_THE_IMAGE = """
import torch, torchvision
import mmcv, mmengine, mmdet, mmdet3d
import mmdet.models, mmdet3d.datasets, mmdet3d.evaluation, mmdet3d.models, mmdet3d.structures, mmdet3d.visualization
from mmcv.ops import ModulatedDeformConv2dPack, Voxelization, nms
from mmdet3d.registry import MODELS

print("versions", torch.__version__, mmcv.__version__, mmengine.__version__, mmdet.__version__, mmdet3d.__version__)
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
kept, _ = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
assert len(kept) == 2

# one deformable convolution, mmcv's and torchvision's: the layers of our networks are torchvision's
torch.manual_seed(0)
conv = ModulatedDeformConv2dPack(8, 4, 3, padding=1)
torch.nn.init.normal_(conv.conv_offset.weight, std=0.1)
images = torch.randn(2, 8, 9, 11)
ours = conv.conv_offset(images)
expected = torchvision.ops.deform_conv2d(
    images, ours[:, :18], conv.weight, conv.bias, padding=1, mask=ours[:, 18:].sigmoid()
)
print("deformable convolution differs by", (conv(images) - expected).abs().max().item())
torch.testing.assert_close(conv(images), expected)

voxels, places, points = Voxelization([1, 1, 1], [0, 0, 0, 4, 4, 4], 8)(torch.rand(50, 4) * 4)
assert int(points.sum()) <= 50
second = dict(type="SECOND", in_channels=16, out_channels=[16, 32], layer_nums=[1, 1], layer_strides=[1, 2])
backbone = MODELS.build(second)
assert [tuple(level.shape) for level in backbone(torch.randn(1, 16, 16, 16))] == [(1, 16, 16, 16), (1, 32, 8, 8)]
import training
assert training.__file__.startswith("/opt/bevnext-sam2/"), training.__file__
print("imported and used")
"""


@pytest.fixture(scope="module")
def openmmlab(engine: None) -> str:
    ready = os.environ.get("BEVNEXT_SAM2_TEST_OPENMMLAB_IMAGE")
    return ready or build_image("openmmlab", IMAGE, BASE_IMAGE)


def test_operators_are_compiled_and_every_part_is_imported(openmmlab: str) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", "--interactive", "--read-only", "--tmpfs", "/tmp", openmmlab, "python", "-"],
        input=IN_THE_IMAGE,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "imported and used" in done.stdout


def test_the_platform_still_works_there(openmmlab: str) -> None:
    docker("run", "--rm", "--read-only", "--tmpfs", "/tmp", openmmlab, "plan", "--device", "cpu")
