"""The golden rule itself: what it draws is what the files were made from."""

import golden_rule
import numpy as np
import pytest
from goldens import Golden

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
    ("name", "tag", "size", "samples", "frames"),
    [
        ("stage1_small", "stage1small", (64, 176), 2, 1),
        ("stage1_full", "stage1", (256, 704), 2, 1),
        ("stage2_small", "stage2small", (64, 176), 1, 9),
        ("stage2_full", "stage2", (256, 704), 1, 9),
    ],
)
def test_inputs_are_those_of_the_file(name, tag, size, samples, frames):
    golden = Golden(name)
    drawn, rig = golden_rule.inputs(samples, tag, size, frames), golden_rule.cameras(samples, size, frames)
    golden.check("in/imgs", drawn.images.swapaxes(1, 2).reshape(samples, -1, 3, *size), 1e-12)
    golden.check("in/canvas", drawn.canvas, 1e-12)
    golden.check("in/gt_depth", drawn.depth, 1e-12)
    for key, matrices in vars(rig).items():
        golden.check(f"in/{key}", matrices.reshape(golden[f"in/{key}"].shape), 1e-7)
    for i, (boxes, labels) in enumerate(golden_rule.boxes(samples, tag)):
        np.testing.assert_array_equal(golden[f"in/gt_boxes_{i}"], boxes)
        np.testing.assert_array_equal(golden[f"in/gt_labels_{i}"], labels)
