"""A scene as a short film: six cameras beside the view from above, one frame a key frame, playable in browsers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from configs.errors import UsageError
from configs.replaced_file import replacing, unwritable
from evaluation.figures.bev import draw_bev, to_pixels
from evaluation.figures.cameras import draw_cameras
from evaluation.figures.masks import DrawnMask
from evaluation.figures.sample_view import SampleView
from evaluation.global_boxes import GlobalBoxes

Canvas = npt.NDArray[np.uint8]

_ENCODERS: Final = {
    "libx264": {"crf": "20", "preset": "medium", "movflags": "faststart"},
    "libvpx-vp9": {"crf": "30", "b": "0"},
}
"""Encoders of formats that browsers play inside MP4 (H.264, VP9), preferred first, with their quality."""


def draw_film_frame(
    view: SampleView,
    predictions: GlobalBoxes,
    truth: GlobalBoxes | None,
    *,
    image_width: int = 480,
    masks: Sequence[DrawnMask] | None = None,
) -> Canvas:
    """Cameras on the left, the view from above on the right; uint8 RGB with even height and width."""
    cameras = draw_cameras(view, predictions, truth, image_width=image_width, masks=masks)
    above = to_pixels(draw_bev(view, predictions, truth, inches=4.6), cameras.shape[0])
    frame = np.hstack([cameras, above])
    height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
    return np.ascontiguousarray(frame[:height, :width])


def write_video(frames: Iterable[Canvas], path: Path, frames_per_second: int) -> Path:
    """Encode frames of one size, uint8 RGB, to an MP4 file; it appears under its name when it is complete.

    Raises:
        UsageError: the installed PyAV has no encoder whose output browsers play.
        BevnextError: the file cannot be written.
    """
    encoder = _encoder()
    try:
        with replacing(path) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
            _encode(container, encoder, frames, frames_per_second)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _encode(
    container: av.container.OutputContainer, encoder: str, frames: Iterable[Canvas], frames_per_second: int
) -> None:
    stream = container.add_stream(encoder, rate=frames_per_second, options=_ENCODERS[encoder])
    assert isinstance(stream, av.VideoStream)
    stream.pix_fmt = "yuv420p"
    for number, pixels in enumerate(frames):
        if number == 0:
            stream.height, stream.width = pixels.shape[:2]
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode())


def _encoder() -> str:
    for name in _ENCODERS:
        if name in av.codecs_available:
            return name
    raise UsageError(
        f"the installed PyAV has none of the video encoders {', '.join(_ENCODERS)}",
        fix="install PyAV from its wheel (`pip install --force-reinstall av`), or use `--no-video`",
    )
