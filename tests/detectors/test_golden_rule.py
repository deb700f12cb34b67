"""The golden rule itself: what it draws is what the files were made from."""

import golden_rule
import numpy as np
import pytest
from goldens import Golden

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
    ("name", "tag", "size"), [("stage1_small", "stage1small", (64, 176)), ("stage1_full", "stage1", (256, 704))]
)
def test_inputs_are_those_of_the_file(name, tag, size):
    golden = Golden(name)
    drawn, rig = golden_rule.inputs(2, tag, size), golden_rule.cameras(2, size)
    golden.check("in/imgs", drawn.images, 1e-12)
    golden.check("in/canvas", drawn.canvas, 1e-12)
    golden.check("in/gt_depth", drawn.depth, 1e-12)
    for key in vars(rig):
        golden.check(f"in/{key}", getattr(rig, key), 1e-7)
    for i, (boxes, labels) in enumerate(golden_rule.boxes(2, tag)):
        np.testing.assert_array_equal(golden[f"in/gt_boxes_{i}"], boxes)
        np.testing.assert_array_equal(golden[f"in/gt_labels_{i}"], labels)
