"""Overlap of rotated rectangles and greedy suppression."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity, geometry

from detectors.ops.rotated_overlap import intersection_area, rotated_iou
from detectors.ops.suppression import suppress_circle, suppress_rotated


def polygon(rectangle):
    x, y, length, width, yaw = rectangle
    box = geometry.box(-length / 2, -width / 2, length / 2, width / 2)
    return affinity.translate(affinity.rotate(box, yaw, origin=(0, 0), use_radians=True), x, y)


def random_rectangles(count: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    centre, size = draw.uniform(-3, 3, (count, 2)), draw.uniform(0.3, 5, (count, 2))
    return np.concatenate([centre, size, draw.uniform(-4, 4, (count, 1))], 1)


def test_overlap_equals_polygon_clipping():
    a, b = random_rectangles(500, 0), random_rectangles(500, 1)
    expected = []
    for first, second in zip(a, b, strict=True):
        p, q = polygon(first), polygon(second)
        shared = p.intersection(q).area
        expected.append(shared / (p.area + q.area - shared))
    np.testing.assert_allclose(rotated_iou(torch.tensor(a), torch.tensor(b)), expected, atol=1e-12)


angles = st.sampled_from([k * math.pi / 4 for k in range(-4, 5)]) | st.floats(-7, 7)
rectangles = st.tuples(
    st.integers(-3, 3).map(float) | st.floats(-3, 3),
    st.integers(-3, 3).map(float) | st.floats(-3, 3),
    st.floats(0.1, 8),
    st.floats(0.1, 8),
    angles,
)


@settings(max_examples=300, deadline=None)
@given(rectangles, rectangles)
def test_overlap_is_symmetric_bounded_and_exact_where_edges_coincide(a, b):
    pair = torch.tensor([a, b], dtype=torch.float64)
    shared = intersection_area(pair, pair.flip(0))
    expected = polygon(a).intersection(polygon(b)).area
    np.testing.assert_allclose(shared, [expected, expected], atol=1e-7)
    torch.testing.assert_close(rotated_iou(pair, pair), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-7)


def test_yaw_is_counter_clockwise_and_length_lies_along_it():
    long_box = torch.tensor([[0.0, 0, 10, 1, math.pi / 4]])
    on_diagonal, off_diagonal = torch.tensor([[3.0, 3, 1, 1, 0]]), torch.tensor([[3.0, -3, 1, 1, 0]])
    assert rotated_iou(long_box, on_diagonal) > 0.05
    assert rotated_iou(long_box, off_diagonal) == 0


def greedy(overlaps: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in range(len(overlaps)):
        if all(overlaps[j, i] <= threshold for j in kept):
            kept.append(i)
    return kept


def test_suppression_is_greedy_by_order():
    boxes = torch.tensor(random_rectangles(120, 2))
    first, second = torch.meshgrid(torch.arange(120), torch.arange(120), indexing="ij")
    overlaps = rotated_iou(boxes[first.flatten()], boxes[second.flatten()]).view(120, 120).numpy()
    for threshold in (0.05, 0.2, 0.5):
        assert suppress_rotated(boxes, threshold).tolist() == greedy(overlaps, threshold)


def test_a_suppressed_box_suppresses_nothing():
    row = torch.tensor([[0.0, 0, 2, 1, 0], [1, 0, 2, 1, 0], [2, 0, 2, 1, 0]])
    assert suppress_rotated(row, 0.2).tolist() == [0, 2]


def test_circle_compares_the_squared_distance():
    centres = torch.tensor([[0.0, 0], [1.4, 0], [1.5, 0], [0, 2.5]])
    assert suppress_circle(centres, 2.0).tolist() == [0, 2, 3]


def test_nothing_to_suppress():
    assert suppress_rotated(torch.zeros(0, 5), 0.2).tolist() == []
    assert suppress_circle(torch.zeros(0, 2), 1.0).tolist() == []
