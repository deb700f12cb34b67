"""Measure the masks of a SAM 2 against exact or annotated ones, beside what the boxes alone give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from integration.composition import keep_to_outlines
from integration.masks.examples import MaskData, MaskExample
from integration.masks.metrics import MaskScores
from integration.masks.train import decode_examples
from integration.segmenter import Segmenter, upsample

SAM2: Final = "SAM 2"


@torch.no_grad()
def evaluate_masks(
    segmenter: Segmenter, examples: MaskData, every: int = 1, on_progress: Callable[[int, int], None] | None = None
) -> MaskScores:
    """Scores of all objects with at least one visible pixel.

    Args:
        examples: with hulls.
        every: take each n-th image only.
    """
    scores = MaskScores((SAM2, *examples.baselines))
    places = range(0, len(examples), every)
    for done, place in enumerate(places, start=1):
        example = examples[place]
        if len(example.boxes):
            _score(scores, example, segmenter)
        if on_progress is not None:
            on_progress(done, len(places))
    return scores


def _score(scores: MaskScores, example: MaskExample, segmenter: Segmenter) -> None:
    height, width = example.image.shape[1:]
    logits = decode_examples(segmenter, [example], segmenter.encode(example.image[None])).logits.cpu()
    if example.outline is not None:
        rows, columns = example.outline.shape[1:]
        cells = example.boxes * torch.tensor([columns / width, rows / height] * 2)
        logits = keep_to_outlines(logits, cells, example.outline)
    found = upsample(logits, (height, width))[:, 0] > 0
    assert example.hulls is not None
    for number, truth in enumerate(example.masks):
        if bool(truth.any()):
            masks = [one[number].numpy() for one in (found, *example.hulls)]
            scores.add(float(example.occlusion[number]), truth.numpy(), masks)
