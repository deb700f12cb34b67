"""Pictures: boxes appear where they are, in their colours, and films play."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from made_up_view import GREY, SIZE, boxes_at, made_up_view

from evaluation.figures.bev import draw_bev, to_bytes, to_pixels
from evaluation.figures.cameras import draw_camera, draw_cameras
from evaluation.figures.palette import CLASS_COLOURS, rgb
from evaluation.figures.video import draw_film_frame, write_video

LABEL_FREE = 40  # rows below the camera's name
FRONT, BACK = 1, 4


def coloured(image: np.ndarray, colour: tuple[int, int, int], tolerance: int = 60) -> np.ndarray:
    """Pixels `[n, 2]` (row, column) near a colour."""
    return np.argwhere(np.abs(image.astype(int) - colour).max(axis=2) < tolerance)


def test_a_box_is_drawn_where_it_stands() -> None:
    image = draw_camera(made_up_view(), FRONT, boxes_at([(12.0, 0.0)]), None, SIZE[1])
    drawn = coloured(image, rgb(CLASS_COLOURS["car"]))
    bottom, left, right = drawn[:, 0].max(), drawn[:, 1].min(), drawn[:, 1].max()
    # near face 10 m ahead: half a width of 1 m is 26 px, the ground 1.5 m below the camera 39 px
    assert bottom == pytest.approx(89.5 + 39, abs=2)
    assert left == pytest.approx(159.5 - 26, abs=2)
    assert right == pytest.approx(159.5 + 26, abs=40)  # the label may reach further to the right


def test_each_camera_shows_its_own_side() -> None:
    view, boxes = made_up_view(), boxes_at([(-15.0, 0.0)])
    drawn = [np.ptp(draw_camera(view, i, boxes, None, SIZE[1])[LABEL_FREE:]) > 0 for i in range(6)]
    assert drawn == [False, False, False, False, True, False]


def test_a_box_beside_the_camera_stays_in_the_image() -> None:
    image = draw_camera(made_up_view(), FRONT, boxes_at([(1.0, 1.2)]), boxes_at([(0.5, -1.5)]), SIZE[1])
    assert image.shape == (*SIZE, 3)
    assert len(coloured(image, rgb(CLASS_COLOURS["car"]))) > 50


def test_truth_and_predictions_differ() -> None:
    view, nothing, boxes = made_up_view(), boxes_at([]), boxes_at([(12.0, 0.0)])
    truth = draw_camera(view, FRONT, nothing, boxes, SIZE[1])[LABEL_FREE:]
    assert len(coloured(truth, (255, 255, 255))) > 50
    assert len(coloured(truth, rgb(CLASS_COLOURS["car"]))) == 0


def test_the_sheet_holds_six_images_in_order() -> None:
    sheet = draw_cameras(made_up_view(), boxes_at([(-15.0, 0.0)]), image_width=SIZE[1])
    height, width = SIZE
    assert sheet.shape == (2 * height + 3, 3 * width + 6, 3)
    assert (sheet[height : height + 3] == 255).all()
    back = sheet[height + 3 + LABEL_FREE :, width + 3 : 2 * width + 3]
    assert np.ptp(back) > 0
    assert (sheet[LABEL_FREE:height, :width] == GREY).all()


def test_from_above_ahead_is_up_and_left_is_left() -> None:
    pixels = to_pixels(draw_bev(made_up_view(), boxes_at([(30.0, 20.0)], "bus")), 600)
    assert pixels.shape[0] == 600
    drawn = coloured(pixels[:480], rgb(CLASS_COLOURS["bus"]), 40)  # above the legend
    row, column = drawn.mean(axis=0)
    assert row < 240
    assert column < pixels.shape[1] / 2


def test_files_are_what_they_say() -> None:
    figure = draw_bev(made_up_view(), boxes_at([(10.0, 0.0)]), boxes_at([(11.0, 0.0)]))
    assert to_bytes(figure, "png", dpi=50).startswith(b"\x89PNG")
    assert to_bytes(figure, "pdf").startswith(b"%PDF")


def test_a_film_plays(tmp_path: Path) -> None:
    view = made_up_view()
    frames = [draw_film_frame(view, boxes_at([(x, 0.0)]), None, image_width=160) for x in (10.0, 15.0, 20.0)]
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    path = write_video(iter(frames), tmp_path / "films" / "scene.mp4", frames_per_second=2)
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
        assert stream.codec_context.name in ("h264", "vp9")
        assert stream.pix_fmt == "yuv420p"
        assert film.duration == pytest.approx(1.5e6)
    assert [frame.shape for frame in decoded] == [frame.shape for frame in frames]
    assert np.abs(decoded[0].astype(int) - frames[0]).mean() < 6
    assert [entry.name for entry in path.parent.iterdir()] == ["scene.mp4"]
