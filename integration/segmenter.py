"""SAM 2 for images behind one small interface: encode images once, decode many prompts, gradients where they are on.

Shape legend: M images, H W network image, P prompts, K points of a prompt, m masks of a prompt, C channels. Masks come
as logits at a quarter of the network image's size. Pixel coordinates are those of the image as given; the centre of the
first pixel is (0, 0), as in the published predictor.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.errors import UsageError
from integration.precision import autocast_to

MEAN: Final = (0.485, 0.456, 0.406)
DEVIATION: Final = (0.229, 0.224, 0.225)
STRIDE: Final = 32
LOGIT_STRIDE: Final = 4
LOGIT_LIMIT: Final = 32.0
"""Mask prompts are clamped to this, as published."""

NEGATIVE, POSITIVE, BOX_START, BOX_END, NO_POINT = 0, 1, 2, 3, -1
"""Labels of points. A box is two points in front of all others: its top left and its bottom right corner."""


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the decoder needs of M images."""

    embedding: Tensor
    """`[M, C, H/16, W/16]`"""
    fine: Tensor
    """`[M, C/8, H/4, W/4]`"""
    middle: Tensor
    """`[M, C/4, H/8, W/8]`"""
    source_size: tuple[int, int]
    """Height and width of the images as given."""
    network_size: tuple[int, int]
    """H, W"""

    def detach(self) -> ImageFeatures:
        """The same values, cut off from the encoder."""
        parts = (self.embedding.detach(), self.fine.detach(), self.middle.detach())
        return ImageFeatures(*parts, self.source_size, self.network_size)


@dataclass(frozen=True, slots=True)
class Prompts:
    """P prompts, each for one object in one image."""

    image: Tensor
    """int64 `[P]`: which of the M images."""
    points: Tensor
    """float32 `[P, K, 2]`: u, v in pixels of the source image."""
    labels: Tensor
    """int64 `[P, K]`: NEGATIVE, POSITIVE, BOX_START, BOX_END, or NO_POINT for entries without meaning."""
    masks: Tensor | None = None
    """float32 `[P, 1, H/4, W/4]`: logits of a mask to start from."""

    @classmethod
    def of_boxes(cls, image: Tensor, boxes: Tensor, masks: Tensor | None = None) -> Prompts:
        """Boxes `[P, 4]`: left, top, right, bottom."""
        labels = torch.tensor([BOX_START, BOX_END], device=boxes.device).expand(len(boxes), 2)
        return cls(image, boxes.reshape(-1, 2, 2), labels, masks)

    def __len__(self) -> int:
        return len(self.image)

    def part(self, chosen: slice) -> Prompts:
        """Some of them."""
        masks = None if self.masks is None else self.masks[chosen]
        return Prompts(self.image[chosen], self.points[chosen], self.labels[chosen], masks)


@dataclass(frozen=True, slots=True)
class MaskOutputs:
    """What the decoder says to P prompts."""

    logits: Tensor
    """`[P, m, H/4, W/4]`: above 0 inside the object."""
    iou: Tensor
    """`[P, m]`: the IoU that it expects of each mask."""
    token: Tensor
    """`[P, C]`: describes the object."""
    presence: Tensor
    """`[P]`: logit of there being an object at all."""


class Segmenter(nn.Module):
    """The image part of a SAM 2, under its published parameter names.

    Args:
        network: `sam2_package.construct_sam2(...)`; its memory (for films) is left aside.
        network_size: height and width that images are resized to, multiples of 32. Default: the configuration's square.
        wants_outline: the weights were trained with the outline of the 3D box (`integration.outline_prior`).

    Its `lower_kind` is the type that it computes in (`integration.precision`); `None` leaves it to whoever calls.
    """

    def __init__(
        self, network: nn.Module, network_size: tuple[int, int] | None = None, wants_outline: bool = False
    ) -> None:
        super().__init__()
        published: Any = network
        self.image_encoder = published.image_encoder
        self.sam_prompt_encoder = published.sam_prompt_encoder
        self.sam_mask_decoder = published.sam_mask_decoder
        self.no_mem_embed = published.no_mem_embed if published.directly_add_no_mem_embed else None
        self.network_size = network_size or (published.image_size, published.image_size)
        self.wants_outline = wants_outline
        self.lower_kind: torch.dtype | None = None
        check_size(self.network_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def channels(self) -> int:
        """C of the image embedding."""
        return int(self.sam_prompt_encoder.embed_dim)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB `[M, 3, h, w]` of any size to the network's float32 `[M, 3, H, W]`; the aspect ratio may change."""
        floats = images.to(self.device, torch.float32) / 255
        if floats.shape[-2:] != self.network_size:
            floats = functional.interpolate(floats, self.network_size, mode="bilinear", antialias=True)
        return standardise(floats)

    def encode(self, images: Tensor, chunk: int = 6) -> ImageFeatures:
        """Features of uint8 RGB images `[M, 3, h, w]`, `chunk` images at a time."""
        check_images(images)
        with self._precision():
            pieces = [self._encode(part) for part in torch.split(images, chunk)]
        fine, middle, embedding = (torch.cat(maps) for maps in zip(*pieces, strict=True))
        height, width = images.shape[-2:]
        return ImageFeatures(embedding, fine, middle, (height, width), self.network_size)

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._for_decoder(self.image_encoder(self.normalise(images))["backbone_fpn"])

    def finish(self, maps: Sequence[Tensor], source_size: tuple[int, int]) -> ImageFeatures:
        """As `encode`, from the maps of the trunk (stride 4 to 32) of images that had `source_size`."""
        with self._precision():
            merged = self.image_encoder.neck(list(maps))[0]
            fine, middle, embedding = self._for_decoder(merged[: len(merged) - self.image_encoder.scalp])
        height, width = (side * LOGIT_STRIDE for side in maps[0].shape[-2:])
        return ImageFeatures(embedding, fine, middle, source_size, (height, width))

    def _for_decoder(self, merged: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's share of the neck's maps, the finest first."""
        fine, middle, embedding = merged
        if self.no_mem_embed is not None:
            embedding = embedding + self.no_mem_embed.view(1, -1, 1, 1)
        return self.sam_mask_decoder.conv_s0(fine), self.sam_mask_decoder.conv_s1(middle), embedding

    def decode(self, features: ImageFeatures, prompts: Prompts, several: bool = False, chunk: int = 32) -> MaskOutputs:
        """Masks for all prompts, `chunk` of them at a time so that memory stays bounded.

        Args:
            several: three masks (whole, part, part of a part) for prompts that can mean several things, instead of one.
        """
        self._check_prompts(features, prompts)
        starts = range(0, max(len(prompts), 1), chunk)
        with self._precision():
            pieces = [self._decode(features, prompts.part(slice(start, start + chunk)), several) for start in starts]
        joined = [torch.cat(values) for values in zip(*pieces, strict=True)]
        return MaskOutputs(*(joined if self.lower_kind is None else [one.float() for one in joined]))

    def _precision(self) -> AbstractContextManager[object]:
        return autocast_to(self.lower_kind, self.device)

    def _decode(
        self, features: ImageFeatures, prompts: Prompts, several: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        height, width = features.network_size
        if len(prompts) == 0:  # the published decoder fails on none
            shape = (0, 3 if several else 1)
            empty = features.embedding.new_empty
            quarter = (height // LOGIT_STRIDE, width // LOGIT_STRIDE)
            return empty(*shape, *quarter), empty(shape), empty(0, self.channels), empty(0)
        encoder = self.sam_prompt_encoder
        # The published encoder takes the sizes of its construction; images here may have others.
        encoder.input_image_size = features.network_size
        encoder.image_embedding_size = tuple(features.embedding.shape[-2:])
        scale = prompts.points.new_tensor([width / features.source_size[1], height / features.source_size[0]])
        masks = None if prompts.masks is None else prompts.masks.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        sparse, dense = encoder(points=(prompts.points * scale, prompts.labels), boxes=None, masks=masks)
        logits, iou, token, presence = self.sam_mask_decoder(
            image_embeddings=features.embedding[prompts.image],
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            repeat_image=False,
            high_res_features=[features.fine[prompts.image], features.middle[prompts.image]],
        )
        return logits, iou, token[:, 0], presence[:, 0]

    def _check_prompts(self, features: ImageFeatures, prompts: Prompts) -> None:
        if len(prompts) and not bool(prompts.points[prompts.labels != NO_POINT].isfinite().all()):
            raise UsageError("a prompt has a point that is not a number", fix="leave out objects without a place")
        if len(prompts) and int(prompts.image.max()) >= len(features.embedding):
            raise UsageError(
                f"a prompt is for image {int(prompts.image.max())} of {len(features.embedding)}",
                fix="count images from 0",
            )


def standardise(images: Tensor) -> Tensor:
    """RGB `[M, 3, H, W]`, 0 to 1, as SAM 2 was trained on them."""
    mean, deviation = (images.new_tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    return (images - mean) / deviation


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits `[P, m, h, w]` at the size of an image (bilinear, as published)."""
    return functional.interpolate(logits.float(), size, mode="bilinear", align_corners=False)


def check_size(size: Sequence[int]) -> None:
    """Raises `UsageError` unless height and width are positive multiples of 32."""
    for name, length in zip(("height", "width"), size, strict=True):
        if length < STRIDE or length % STRIDE:
            raise UsageError(
                f"SAM 2's network image: {name} {length} is not a multiple of {STRIDE}",
                fix=f"use {max(1, round(length / STRIDE)) * STRIDE}",
            )


def check_images(images: Tensor) -> None:
    """Raises `UsageError` unless images are uint8 RGB `[M, 3, h, w]`."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise UsageError(
            f"images are {str(images.dtype).removeprefix('torch.')} {list(images.shape)}, not uint8 [M, 3, h, w]",
            fix="give uint8 RGB pixels 0..255 as they are stored, not normalised ones",
        )
