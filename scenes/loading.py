"""Camera images from disk to the network's canvas: decode, resize, crop, as uint8 RGB.

The pixels are those of Pillow (`Image.open`, bicubic `resize`, `crop`) within one grey level, which is what the
published models were trained on. (Images of hard-edged stripes or blocks, and enlarged ones, can hold a few values per
million that are off by two.) The speed comes from three things that leave the result unchanged: libjpeg-turbo decodes
into memory that is reused (fresh memory costs a page fault per 4 KiB); only those rows and columns are resized that the
crop keeps; and both passes of the resize run on interleaved RGB.

Shape legend: images are `[height, width, 3]`, sizes `(height, width)`.
"""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import Final

import simplejpeg
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from configs.errors import DamagedFileError, DataError
from scenes.remote_root import sensor_bytes

Crop = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the resized image; may leave the image."""

_REACH: Final = 2.0
"""Half the width of the bicubic kernel, in pixels of the resized image."""

_FIX: Final = "fetch the file again; `bevnext-sam2 data check --deep` lists every damaged file"


class ImageLoader:
    """Reads JPEG files and resizes images. Owns scratch memory: do not share one between threads."""

    def __init__(self) -> None:
        self._decoded = _Scratch()
        self._narrowed = _Scratch()
        self._resized = _Scratch()

    def read(self, path: Path, size: tuple[int, int]) -> Tensor:
        """The RGB image in a JPEG file.

        Args:
            size: height and width that the index promises.

        Returns:
            uint8 `[height, width, 3]`, valid until the next call.

        Raises:
            DamagedFileError: missing, truncated or damaged. Nothing is ever repaired.
            DataError: of another size.
        """
        try:
            data = sensor_bytes(path)
        except OSError as error:
            raise DamagedFileError(f"cannot read image {path}: {error.strerror}", fix=_FIX) from error
        try:
            found = simplejpeg.decode_jpeg_header(data)[:2]
            if found == size:
                image = self._decoded.image(*size)
                simplejpeg.decode_jpeg(data, buffer=image.numpy())
                return image
        except ValueError as error:
            raise DamagedFileError(
                f"image {path} ({len(data)} bytes) is not a whole JPEG: {error}", fix=_FIX
            ) from error
        raise DataError(
            f"image {path} is {found[0]}x{found[1]} (height x width), the index says {size[0]}x{size[1]}",
            fix="build the index again (`bevnext-sam2 data index`)",
        )

    def resize_crop(self, image: Tensor, resized: tuple[int, int], crop: Crop, out: Tensor) -> None:
        """Resize a whole image, as it were, and cut a window out of it; black where the window leaves the image.

        Args:
            image: uint8 `[H, W, 3]`, contiguous; is overwritten.
            resized: size the whole image is resized to.
            crop: window within the resized image.
            out: uint8 `[bottom - top, right - left, 3]`, is written to.
        """
        left, top, right, bottom = crop
        first_row, last_row = max(top, 0), min(bottom, resized[0])
        first_column, last_column = max(left, 0), min(right, resized[1])
        covered = out[max(-top, 0) : max(last_row - top, 0), max(-left, 0) : max(last_column - left, 0)]
        if covered.shape != out.shape:
            out.zero_()
        if covered.numel() == 0:
            return
        if resized[0] < image.shape[0] and resized[1] < image.shape[1]:
            origin, window = self._shrink(image, resized, (first_row, last_row), last_column)
        else:
            narrowed = self._narrowed.image(image.shape[0], resized[1])
            _resample_rows(image, resized[1] / image.shape[1], narrowed)
            origin, window = 0, self._resized.image(*resized)
            _resample(narrowed, (resized[0] / image.shape[0], 1.0), window)
        covered.copy_(window[first_row - origin : last_row - origin, first_column:last_column])

    def resize(self, image: Tensor, out: Tensor) -> None:
        """Resize a whole image (uint8 `[H, W, 3]`, stays as it is) to that of `out`; the aspect ratio may change.

        Anti-aliased and bilinear, as SAM 2 has its images.
        """
        size = (out.shape[0], out.shape[1])
        out.copy_(interpolate(_channels_first(image), size, mode="bilinear", antialias=True)[0].permute(1, 2, 0))

    def _shrink(
        self, image: Tensor, resized: tuple[int, int], rows: tuple[int, int], columns: int
    ) -> tuple[int, Tensor]:
        """The part of the resized image up to row `rows[1]` and column `columns`, right from row `rows[0]` on.

        The horizontal pass reads only the source rows that the kernel reaches. The vertical pass has to start where an
        output row and a source row begin at the same place; what lies before the rows that were read is whatever the
        scratch memory holds, and only output rows before `rows[0]` see it.

        Returns:
            The output row it starts with, and uint8 `[rows[1] - start, columns, 3]`.
        """
        height, width, _ = image.shape
        scale = height / resized[0]
        begin = max(int((rows[0] + 0.5 - _REACH) * scale), 0)
        end = min(int((rows[1] - 0.5 + _REACH) * scale) + 1, height)
        common = gcd(height, resized[0])
        period, source_period = resized[0] // common, height // common
        periods = min(rows[0] // period, begin // source_period)
        start, source_start = periods * period, periods * source_period

        narrowed = self._narrowed.image(end - source_start, columns)
        _resample_rows(image[begin:end], resized[1] / width, narrowed[begin - source_start :])
        window = self._resized.image(rows[1] - start, columns)
        _resample(narrowed, (resized[0] / height, 1.0), window)
        return start, window


class _Scratch:
    """Memory that is used again for image after image; what an image holds at first is arbitrary."""

    def __init__(self) -> None:
        self._memory = torch.zeros(0, dtype=torch.uint8)

    def image(self, height: int, width: int) -> Tensor:
        """uint8 `[height, width, 3]`"""
        values = height * width * 3
        if self._memory.numel() < values:
            self._memory = torch.zeros(values, dtype=torch.uint8)
        return self._memory[:values].view(height, width, 3)


def _resample_rows(image: Tensor, scale: float, out: Tensor) -> None:
    """The horizontal pass, into `out`; `image` is overwritten.

    The operator keeps 16 bits of each weight, so what it makes of a bright area is off by up to 0.02 grey levels, in
    the same direction in every row; where that tips the rounding of a whole column, the vertical pass can amplify it
    to two levels. Every third row is resampled as its negative, where the same error points the other way.
    """
    image[1::3].bitwise_not_()
    _resample(image, (1.0, scale), out)
    out[1::3].bitwise_not_()


def _resample(image: Tensor, scales: tuple[float, float], out: Tensor) -> None:
    """Anti-aliased bicubic resampling of `[H, W, 3]` into `out`, with the upper left corners aligned.

    This is the operator behind `torch.nn.functional.interpolate`, which does not take a size and scales together: the
    size of `out` says how much of the result is wanted, the scales (new over old) where its pixels lie. An axis whose
    size does not change is left alone, whatever its scale.
    """
    torch.ops.aten._upsample_bicubic2d_aa.out(
        _channels_first(image), out.shape[:2], False, scales[0], scales[1], out=_channels_first(out)
    )


def _channels_first(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1)[None]
