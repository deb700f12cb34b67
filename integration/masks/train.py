"""Train a SAM 2 for images on exact instance masks: one step after the other, top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW

from integration.masks.example_stream import batches_from
from integration.masks.examples import MaskData, MaskExample
from integration.masks.losses import mask_losses
from integration.masks.training_state import (
    CURVE,
    STATE,
    WEIGHTS,
    Options,
    Place,
    cut_curve,
    restore_state,
    save_state,
)
from integration.outline_prior import decode_with_outline
from integration.sam2_weights import save_segmenter
from integration.segmenter import (
    BOX_END,
    BOX_START,
    ImageFeatures,
    MaskOutputs,
    Prompts,
    Segmenter,
    upsample,
)


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How masks are trained."""

    steps: int
    images: int = 4
    """Images per step."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup: float = 0.05
    """Share of the steps."""
    train_encoder: bool = True
    workers: int = 1
    seed: int = 0
    save_every: int = 50
    """Steps between two writings of the state, so that an interruption loses little."""


def train_masks(
    segmenter: Segmenter,
    examples: MaskData,
    options: TrainingOptions,
    folder: Path,
    report: Callable[[int, dict[str, float]], None],
    *,
    state: Path | None = None,
    made_of: Options | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train on `examples`; weights go to `folder/sam2.safetensors`, the curve to `folder/metrics.jsonl`.

    Until the end `folder/training_state.pt` holds what is needed to go on.

    Args:
        report: called after each step with its number (from 1) and its loss terms.
        state: an earlier `training_state.pt` to go on from.
        made_of: what else decides the weights; the same must be given to go on.
        should_stop: asked after each step.

    Returns:
        Whether it came to the end; else it was stopped, and the state is saved.
    """
    torch.manual_seed(options.seed)
    trained = _trained_parameters(segmenter, options.train_encoder)
    optimizer = AdamW(trained, lr=options.learning_rate, weight_decay=options.weight_decay)
    decisive = {**asdict(options), **(made_of or {})}
    for name in ("workers", "save_every"):
        decisive.pop(name)
    place = restore_state(state, segmenter, optimizer, decisive) if state else Place()
    folder.mkdir(parents=True, exist_ok=True)
    if state is None:
        (folder / STATE).unlink(missing_ok=True)  # of an earlier training, which this one takes the place of
    cut_curve(folder / CURVE, place.step)
    segmenter.train()
    segmenter.image_encoder.train(options.train_encoder)
    begun = time.process_time() - place.seconds
    batches = batches_from(examples, place.drawn, options.images, options.workers, options.seed)
    with (folder / CURVE).open("a", encoding="utf-8") as log, closing(batches):
        for step in range(place.step + 1, options.steps + 1):
            batch, drawn = next(batches)
            rate = options.learning_rate * _rate_factor(step, options)
            for group in optimizer.param_groups:
                group["lr"] = rate
            terms = batch_losses(segmenter, batch, options.train_encoder)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, options.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            values = {name: round(float(term.detach()), 5) for name, term in terms.items()}
            seconds = round(time.process_time() - begun, 1)
            log.write(json.dumps({"step": step, "lr": rate, "cpu_seconds": seconds, **values}) + "\n")
            log.flush()
            report(step, values)
            stop = should_stop() and step < options.steps
            if stop or step % options.save_every == 0:
                save_state(folder / STATE, segmenter, optimizer, Place(step, drawn, seconds), decisive)
            if stop:
                return False
    save_segmenter(segmenter.eval(), folder / WEIGHTS)
    (folder / STATE).unlink(missing_ok=True)
    return True


def batch_losses(segmenter: Segmenter, batch: Sequence[MaskExample], train_encoder: bool) -> dict[str, Tensor]:
    """The loss terms of some images, masks compared at half the size of the stored image."""
    with torch.set_grad_enabled(train_encoder):
        features = segmenter.encode(torch.stack([example.image for example in batch]))
    outputs = decode_examples(segmenter, batch, features)
    masks = torch.cat([example.masks for example in batch]).to(outputs.logits.device)
    targets = functional.avg_pool2d(masks.float(), 2)
    logits = upsample(outputs.logits, (targets.shape[1], targets.shape[2]))[:, 0]
    return mask_losses(logits, outputs.iou[:, 0], outputs.presence, targets)


def decode_examples(segmenter: Segmenter, batch: Sequence[MaskExample], features: ImageFeatures) -> MaskOutputs:
    """Masks of all objects of some images, from their boxes and, where the weights want it, their outlines."""
    device = features.embedding.device
    prompts = _prompts(batch, device)
    if not segmenter.wants_outline:
        return segmenter.decode(features, prompts)
    outline, open_outline = (
        torch.cat([_given(getattr(example, part)) for example in batch]).to(device)
        for part in ("outline", "open_outline")
    )
    return decode_with_outline(segmenter, features, prompts, outline, open_outline)


def _prompts(batch: Sequence[MaskExample], device: torch.device) -> Prompts:
    """Boxes, and points where the examples have some."""
    image = torch.cat([torch.full((len(example.boxes),), n) for n, example in enumerate(batch)]).to(device)
    points = torch.cat([example.boxes for example in batch]).view(-1, 2, 2)
    labels = torch.tensor([BOX_START, BOX_END]).expand(len(points), 2)
    if batch[0].points is not None:
        points = torch.cat([points, torch.cat([_given(example.points) for example in batch])], 1)
        labels = torch.cat([labels, torch.cat([_given(example.point_labels) for example in batch])], 1)
    return Prompts(image, points.to(device), labels.to(device))


def _given(value: Tensor | None) -> Tensor:
    """Examples of one set of data have the same fields, and weights that want outlines get data that have them."""
    assert value is not None
    return value


def _trained_parameters(segmenter: Segmenter, train_encoder: bool) -> list[nn.Parameter]:
    segmenter.image_encoder.requires_grad_(train_encoder)
    return [parameter for parameter in segmenter.parameters() if parameter.requires_grad]


def _rate_factor(step: int, options: TrainingOptions) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    warmup = max(1, round(options.warmup * options.steps))
    if step <= warmup:
        return step / warmup
    progress = (step - warmup) / max(1, options.steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
