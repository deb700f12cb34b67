"""Run a detector over samples of an index, in one process or in all processes of a distributed job.

The loader deals whole batches to the ranks in turn. Each is the very batch of a single process, so the result does not
depend on the number of processes, whatever the number of samples; nothing is duplicated or padded. A detector of
several frames goes along scenes, which are dealt whole, and makes the features of each frame once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from configs.schema import DataConfig
from detectors.interface import Detections, Detector, Stream
from evaluation.global_boxes import GlobalBoxes, from_detections
from integration.precision import autocast_to
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex
from scenes.loader import BatchLoader, evaluation_batches
from scenes.sample import Batch
from scenes.streams import StreamSampler, Stretch, along_scenes

ProgressHook = Callable[[int, int], None]
"""Called with the batches done and the batches to do of this process."""

_BOX: Final = 9
_COLUMNS: Final = _BOX + 3  # box, score, label, row of the sample in the index


def predict(
    detector: Detector,
    index: SceneIndex,
    rows: Sequence[int] | npt.NDArray[np.int64],
    data: DataConfig,
    *,
    device: torch.device,
    batch_size: int = 1,
    workers: int = 0,
    on_progress: ProgressHook | None = None,
    streaming: bool = True,
    lower: torch.dtype | None = None,
) -> dict[str, GlobalBoxes] | None:
    """Detections of the samples `rows`, by sample token in the order of `rows`, in the global frame.

    In a distributed job every rank calls this with the same arguments; rank 0 gets the result, the others `None`.
    The detector is put in eval mode and back into the mode it was in.

    Args:
        detector: the bare module (not wrapped in DDP) on `device`.
        batch_size: samples per forward pass on each device.
        workers: loader processes of each rank.
        lower: what the detector computes in; `None` is what its weights are in.
        streaming: go along scenes where the detector can; `False` makes the features of all frames of every sample.
    """
    rank, world = _rank_and_world()
    stream = detector.stream() if streaming else None
    dataset = SceneDataset(index, rows, data, training=False, seed=0, key_images_only=stream is not None)
    pinned = device.type == "cuda"
    if stream is None:
        batches = evaluation_batches(
            dataset, rank=rank, world=world, batch_size=batch_size, workers=workers, pin_memory=pinned
        )
        passes: Iterator[_Pass] = (_Pass(batch, detector) for batch in batches)
    else:
        stretches = along_scenes(dataset, rows, batch_size, rank, world)
        batches = BatchLoader(dataset, StreamSampler(stretches), workers, pinned)
        passes = (_Pass(batch, _on(stream, stretch)) for batch, stretch in zip(batches, stretches, strict=True))
    table = _detect(detector, passes, len(batches), device, lower, on_progress)
    if world > 1:
        gathered = _gather(table, device)
        if gathered is None:
            return None
        table = gathered
    return _by_token(table, index, rows)


def _rank_and_world() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@dataclass(frozen=True, slots=True)
class _Pass:
    """A batch, and what makes raw outputs of it, or nothing where the batch only leads in."""

    batch: Batch
    forward: Callable[[Batch], Any]


def _on(stream: Stream, stretch: Stretch) -> Callable[[Batch], Any]:
    if stretch.wanted:
        return lambda batch: stream.detect(batch, stretch.frames)
    return lambda batch: stream.remember(batch, stretch.rows)


def _detect(
    detector: Detector,
    passes: Iterator[_Pass],
    count: int,
    device: torch.device,
    lower: torch.dtype | None,
    on_progress: ProgressHook | None,
) -> Tensor:
    """Table float64 `[boxes, 12]` of what this process found; float32 values survive in it unchanged."""
    pieces = [torch.empty(0, _COLUMNS, dtype=torch.float64)]
    was_training = detector.training
    detector.eval()
    try:
        with torch.inference_mode():
            for done, one in enumerate(passes, start=1):
                with autocast_to(lower, device):
                    outputs = one.forward(one.batch.to(device, non_blocking=True))
                if outputs is not None:
                    found = detector.decode(outputs)
                    pieces += [_to_table(own, row) for own, row in zip(found, one.batch.rows.tolist(), strict=True)]
                if on_progress is not None:
                    on_progress(done, count)
    finally:
        detector.train(was_training)
    return torch.cat(pieces)


def _to_table(detections: Detections, row: int) -> Tensor:
    columns = [
        detections.boxes.double(),
        detections.scores.double()[:, None],
        detections.labels.double()[:, None],
        torch.full((len(detections.scores), 1), row, dtype=torch.float64, device=detections.boxes.device),
    ]
    return torch.cat(columns, dim=1).cpu()


def _gather(table: Tensor, device: torch.device) -> Tensor | None:
    """The rows of all ranks' tables on rank 0, in rank order; `None` elsewhere. Tensors only: no pickling."""
    place = device if dist.get_backend() != "gloo" else torch.device("cpu")
    world = dist.get_world_size()
    count = torch.tensor([len(table)], device=place)
    counts = [torch.zeros_like(count) for _ in range(world)]
    dist.all_gather(counts, count)
    longest = max(int(one) for one in counts)
    padded = torch.zeros(longest, _COLUMNS, dtype=torch.float64, device=place)
    padded[: len(table)] = table.to(place)
    tables = [torch.empty_like(padded) for _ in range(world)] if dist.get_rank() == 0 else None
    dist.gather(padded, tables, dst=0)
    if tables is None:
        return None
    return torch.cat([one[: int(size)] for one, size in zip(tables, counts, strict=True)]).cpu()


def _by_token(table: Tensor, index: SceneIndex, rows: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, GlobalBoxes]:
    """Boxes of each sample in the order of `rows`, moved to the global frame with the key frame's pose."""
    of_row = table[:, -1].long()
    predictions = {}
    for row in rows:
        found = table[of_row == int(row)]
        detections = Detections(boxes=found[:, :_BOX].float(), scores=found[:, 9].float(), labels=found[:, 10].long())
        frame = index.frame(int(row))
        predictions[frame.token] = from_detections(detections, frame.global_from_ego)
    return predictions
