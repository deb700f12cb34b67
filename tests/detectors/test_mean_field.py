"""The CRF over depth bins: golden vectors, the textbook form with exp and a D x D matrix, gradients, memory."""

import golden_rule
import pytest
import torch
from goldens import Golden
from torch import Tensor

from configs.errors import UsageError
from configs.schema import CrfConfig
from detectors.bevnext.view_transform import DepthCrf
from detectors.ops.mean_field import absolute_difference_product, couple_equal_colours, mean_field


def rows(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def textbook(logits: Tensor, weight: Tensor, colours: Tensor, iterations: int) -> Tensor:
    """Unfolded 3x3 windows, the exponential kernel, the full |d - d'| matrix; `[M, D, h, w]` to rows."""
    images, bins, h, w = logits.shape
    windows = torch.nn.functional.unfold(colours, 3, padding=1).view(images, 3, 9, h * w)
    kernel = torch.exp(-((windows - colours.flatten(2)[:, :, None]) ** 2).sum(1) / (2 * 0.001**2))
    distance = (torch.arange(bins)[:, None] - torch.arange(bins)).abs().to(logits)
    q = logits.softmax(1)
    for _ in range(iterations):
        near = torch.nn.functional.unfold(q, 3, padding=1).view(images, bins, 9, h * w)
        message = torch.einsum("de,mekp,mkp->mdp", distance, near, kernel).view_as(q)
        q = (logits - weight * message).softmax(1)
    return rows(q)


def blocks_of_colour(images: int, h: int, w: int) -> Tensor:
    """Patches of three colours, so that many but not all neighbours are equal."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 3, (images, 1, h, w), generator=generator).expand(-1, 3, -1, -1) * 40.0 + 1 / 64


@pytest.mark.parity
def test_golden_states_and_gradients():
    golden = Golden("crf_unit")
    logits = torch.from_numpy(golden["logits"]).requires_grad_()
    weight = torch.tensor([0.015], requires_grad=True)
    coupling = couple_equal_colours(torch.from_numpy(golden["canvas_color"]))
    images, bins, h, w = logits.shape

    def run(iterations: int) -> Tensor:
        q = mean_field(rows(logits), weight, coupling, iterations)
        return q.view(images, h, w, bins).permute(0, 3, 1, 2)

    for iterations in (0, 1, 2, 20):
        golden.check(f"q{iterations}", run(iterations).contiguous(), 1e-6)
    direction = golden_rule.stream("crf/w").random_sample(logits.shape)
    (run(20) * torch.from_numpy(direction)).sum().backward()
    golden.check("grad_logits", logits.grad, 1e-5)
    golden.check("grad_ws", weight.grad, 1e-5)


@pytest.mark.parity
def test_golden_kernel_is_the_coupling():
    golden = Golden("crf_unit")
    colours = torch.from_numpy(golden["canvas_color"])
    coupling = couple_equal_colours(colours)
    cells = colours[:, 0].numel()
    kernel = torch.zeros(cells, 9)
    kernel[:, 4] = 1
    kernel[coupling.cells[:, None], torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])] = coupling.counts.float()
    stored = torch.from_numpy(golden["kernel"]).transpose(1, 2).flatten(0, 1)
    # Beyond the border the stored kernel holds the colour 0 of the padding, whose probability is 0 anyway.
    inside = torch.nn.functional.unfold(torch.ones_like(colours[:, :1]), 3, padding=1).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(kernel, stored * inside, rtol=0, atol=0)


def test_equals_the_textbook_form_in_float64():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 17, 5, 6, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.tensor([0.05], dtype=torch.float64, requires_grad=True)
    colours = blocks_of_colour(3, 5, 6).double()
    direction = torch.rand(3 * 30, 17, dtype=torch.float64, generator=generator)

    ours = mean_field(rows(logits), weight, couple_equal_colours(colours), 20)
    theirs = textbook(logits, weight, colours, 20)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    gradients = torch.autograd.grad((ours * direction).sum(), (logits, weight))
    expected = torch.autograd.grad((theirs * direction).sum(), (logits, weight))
    torch.testing.assert_close(gradients, expected, rtol=1e-11, atol=1e-13)


def test_absolute_difference_product_equals_the_matrix():
    m = torch.rand(50, 118, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 0.3
    bins = torch.arange(118, dtype=torch.float64)
    expected = m @ (bins[:, None] - bins).abs()
    torch.testing.assert_close(absolute_difference_product(m), expected, rtol=1e-12, atol=1e-10)


def test_only_the_logits_are_kept_for_the_backward_pass():
    logits = torch.randn(200, 118, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        mean_field(logits, torch.tensor([0.01]), couple_equal_colours(torch.zeros(1, 3, 10, 20)), 20)
    assert sum(kept) <= logits.numel() + 1


def test_the_module_groups_images_without_changing_the_result(monkeypatch):
    crf = DepthCrf(CrfConfig(weight=0.05), stride=8)
    logits = torch.randn(5, 20, 4, 6)
    canvas = (torch.randint(0, 2, (5, 1, 4, 6)) * 200).to(torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    canvas = canvas.expand(-1, 3, -1, -1)
    whole = crf(logits, canvas)
    monkeypatch.setattr("detectors.bevnext.view_transform.CELLS_AT_ONCE", 2 * 20 * 4 * 6)
    torch.testing.assert_close(crf(logits, canvas), whole, rtol=0, atol=0)
    torch.testing.assert_close(whole.sum(1), torch.ones(5, 4, 6))


def test_a_kernel_that_is_no_equality_test_is_refused():
    with pytest.raises(UsageError, match=r"crf\.zeta = 0\.01"):
        DepthCrf(CrfConfig(zeta=0.01), stride=8)
