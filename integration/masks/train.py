"""Train a SAM 2 for images on exact instance masks: one step after the other, top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from torch.utils.data import DataLoader, RandomSampler

from integration.masks.examples import MaskExample, MaskExamples
from integration.masks.losses import mask_losses
from integration.outline_prior import decode_with_outline
from integration.sam2_weights import save_segmenter
from integration.segmenter import ImageFeatures, MaskOutputs, Prompts, Segmenter, upsample


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
    """Steps between two writings of the weights, so that an interruption loses little."""


def train_masks(
    segmenter: Segmenter,
    examples: MaskExamples,
    options: TrainingOptions,
    folder: Path,
    report: Callable[[int, dict[str, float]], None],
) -> Path:
    """Train on `examples`; weights go to `folder/sam2.safetensors`, the curve to `folder/metrics.jsonl`.

    Args:
        report: called after each step with its number (from 1) and its loss terms.
    """
    torch.manual_seed(options.seed)
    trained = _trained_parameters(segmenter, options.train_encoder)
    optimizer = AdamW(trained, lr=options.learning_rate, weight_decay=options.weight_decay)
    folder.mkdir(parents=True, exist_ok=True)
    weights, begun = folder / "sam2.safetensors", time.process_time()
    segmenter.train()
    segmenter.image_encoder.train(options.train_encoder)
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as log:
        for step, batch in enumerate(_batches(examples, options), start=1):
            rate = options.learning_rate * _rate_factor(step, options)
            for group in optimizer.param_groups:
                group["lr"] = rate
            terms = batch_losses(segmenter, batch, options.train_encoder)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, options.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            values = {name: round(float(term.detach()), 5) for name, term in terms.items()}
            record = {"step": step, "lr": rate, "cpu_seconds": round(time.process_time() - begun, 1), **values}
            log.write(json.dumps(record) + "\n")
            log.flush()
            report(step, values)
            if step % options.save_every == 0 or step == options.steps:
                save_segmenter(segmenter, weights)
    segmenter.eval()
    return weights


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
    image = torch.cat([torch.full((len(example.boxes),), n) for n, example in enumerate(batch)]).to(device)
    boxes = torch.cat([example.boxes for example in batch]).to(device)
    if not segmenter.wants_outline:
        return segmenter.decode(features, Prompts.of_boxes(image, boxes))
    parts = ("outline", "open_outline")
    outline, open_outline = (torch.cat([getattr(e, part) for e in batch]).to(device) for part in parts)
    return decode_with_outline(segmenter, features, Prompts.of_boxes(image, boxes), outline, open_outline)


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


def _batches(examples: MaskExamples, options: TrainingOptions) -> Iterator[list[MaskExample]]:
    """`steps` batches of images that show something, half of them mirrored."""
    generator = torch.Generator().manual_seed(options.seed)
    # images without objects are passed over, so more are drawn than are needed
    sampler = RandomSampler(examples, num_samples=10 * options.steps * options.images, generator=generator)
    loader = DataLoader(examples, batch_size=None, sampler=sampler, num_workers=options.workers)
    batch: list[MaskExample] = []
    steps = 0
    for example in loader:
        if len(example.boxes) == 0:
            continue
        mirror = bool(torch.rand((), generator=generator) < 0.5)
        batch.append(example.mirrored() if mirror else example)
        if len(batch) == options.images:
            yield batch
            batch = []
            steps += 1
            if steps == options.steps:
                return
