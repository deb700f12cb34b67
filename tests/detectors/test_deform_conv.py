"""The CPU form of deformable convolution against torchvision's kernel."""

import pytest
import torch
from torchvision.ops import deform_conv2d

from detectors.ops.deform_conv import DeformConv, deform_conv_by_gathering


@pytest.mark.parametrize("groups", [1, 4])
def test_gathering_equals_the_kernel_forward_and_backward(groups):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 6, 9, dtype=torch.float64, generator=generator).requires_grad_()
    # Offsets of up to several pixels, also out of the image and exactly onto pixels.
    offset = 3 * torch.randn(2, 18, 6, 9, dtype=torch.float64, generator=generator)
    offset[:, :4] = offset[:, :4].round()
    offset.requires_grad_()
    weight = torch.randn(12, 8 // groups, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
    ours = deform_conv_by_gathering(x, offset, weight)
    theirs = deform_conv2d(x, offset, weight, padding=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    direction = torch.randn_like(ours)
    gradients = torch.autograd.grad(ours, (x, offset, weight), direction)
    expected = torch.autograd.grad(theirs, (x, offset, weight), direction)
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-11)


def test_a_fresh_layer_is_a_plain_convolution():
    layer, x = DeformConv(8, groups=4), torch.randn(1, 8, 5, 7)
    plain = torch.nn.functional.conv2d(x, layer.weight, padding=1, groups=4)
    torch.testing.assert_close(layer(x), plain)
