"""Lift-splat pooling against the scatter that holds every product, and what it holds itself."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from configs.schema import BEVNeXtConfig, DataConfig
from detectors.bevnext.view_transform import ViewTransformer
from detectors.geometry import CameraGeometry
from detectors.ops.view_pooling import pool_views


def naive(depth: Tensor, context: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    products = (depth[:, :, None] * context[:, None]).flatten(0, 1)
    return context.new_zeros(num_cells + 1, context.shape[1]).index_add(0, cells.flatten().long(), products)[:-1]


def random_case(pixels: int, bins: int, channels: int, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(pixels, bins, dtype=torch.float64, generator=generator).softmax(1).requires_grad_()
    context = torch.randn(pixels, channels, dtype=torch.float64, generator=generator).requires_grad_()
    cells = torch.randint(0, num_cells + 1, (pixels, bins), dtype=torch.int32, generator=generator)
    return depth, context, cells


@pytest.mark.parametrize("shape", [(700, 59, 40, 300), (1, 3, 1, 2), (33, 1, 200, 7)])
def test_equals_the_naive_scatter_forward_and_backward(shape):
    depth, context, cells = random_case(*shape)
    ours, theirs = (pool(depth, context, cells, shape[3]) for pool in (pool_views, naive))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    direction = torch.randn_like(ours)
    gradients = torch.autograd.grad(ours, (depth, context), direction)
    expected = torch.autograd.grad(theirs, (depth, context), direction)
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-12)


def test_points_outside_add_nothing():
    depth, context, cells = random_case(5, 4, 3, 6)
    bev = pool_views(depth, context, torch.full_like(cells, 6), 6)
    bev.sum().backward()
    assert not bev.any()
    assert not depth.grad.any()
    assert not context.grad.any()


class LargestTensor(TorchDispatchMode):
    """Numbers in the largest tensor that any operation made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


def test_the_products_of_all_points_never_exist():
    pixels, bins, channels, num_cells = 4096, 64, 64, 1000
    depth, context, cells = random_case(pixels, bins, channels, num_cells)
    kept = []
    with (
        LargestTensor() as largest,
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t),
    ):
        pool_views(depth, context, cells, num_cells).sum().backward()
    assert largest.numbers < pixels * bins * channels // 32
    assert sum(kept) < 4 * pixels * (bins + channels)


def test_first_cells_take_points_just_below_the_range():
    """Indices truncate toward zero: one more cell below x and y, and heights from -13 m (published quirk)."""
    view = ViewTransformer(BEVNeXtConfig(), DataConfig())
    for axis, metres, expected in [
        (view.grid.x, [-52.1, -51.9, -51.2, -50.5, 51.1, 51.3], [-1, 0, 0, 0, 127, 128]),
        (view.grid.z, [-13.1, -12.9, 2.9, 3.1], [-1, 0, 0, 1]),
    ]:
        index = axis.index(torch.tensor(metres))
        assert index.tolist() == expected
        assert axis.holds(index).tolist() == [0 <= i < axis.cells for i in expected]


def test_a_camera_on_the_axis_fills_cells_ahead_of_it():
    """One camera looking along +x from the origin: every kept point lies ahead, in the row of its ray."""
    view = ViewTransformer(BEVNeXtConfig(), DataConfig(image_size=(64, 176)))
    rotation = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    intrinsics = torch.tensor([[500.0, 0, 88], [0, 500, 32], [0, 0, 1]])
    geometry = CameraGeometry(
        intrinsics=intrinsics[None, None],
        rotation=rotation[None, None],
        translation=torch.tensor([[[0.0, 0, 1.5]]]),
        canvas_rotation=torch.eye(3)[None, None],
        canvas_translation=torch.zeros(1, 1, 3),
        bev_rotation=torch.eye(3)[None],
        mounting=torch.cat([rotation, torch.tensor([[0.0], [0.0], [1.5]])], -1)[None, None],
    )
    x, y, z = view.frustum_points(geometry, (8, 22))
    assert (x - view.bins.lower).abs().amin() < 1e-6
    assert (x.amin((0, 1, 2, 3)) == x.amax((0, 1, 2, 3))).all()
    # The image's left edge is u = 0, 88 pixels left of the principal point, so y = 88 / 500 * x there.
    torch.testing.assert_close(y[0, 0, :, 0], 88 / 500 * x[0, 0, :, 0])
    assert z[0, 0, 0].min() > 1.5 > z[0, 0, -1].max()
    cells = view.frustum_cells(geometry, (8, 22))
    kept = cells[cells < view.grid.cells]
    assert (kept % 128 >= 65).all()
