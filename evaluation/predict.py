"""Run a detector over samples of an index, in one process or in all processes of a distributed job.

Whole batches are dealt to the ranks in turn. Each batch is then the very batch of a single process, so the result does
not depend on the number of processes, whatever the number of samples; nothing is duplicated or padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from configs.schema import DataConfig
from detectors.interface import Detections, Detector
from evaluation.global_boxes import GlobalBoxes, from_detections
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex
from scenes.sample import Batch, collate

ProgressHook = Callable[[int, int], None]
"""Called with the samples done and the samples to do of this process."""

_BOX: Final = 9
_COLUMNS: Final = _BOX + 3  # box, score, label, position of the sample among those asked for


def predict(
    detector: Detector,
    index: SceneIndex,
    rows: Sequence[int],
    data: DataConfig,
    *,
    device: torch.device,
    batch_size: int = 1,
    workers: int = 0,
    on_progress: ProgressHook | None = None,
) -> dict[str, GlobalBoxes] | None:
    """Detections of the samples `rows`, by sample token in the order of `rows`, in the global frame.

    In a distributed job every rank calls this with the same arguments; rank 0 gets the result, the others `None`.
    The detector is put in eval mode and back into the mode it was in.

    Args:
        detector: the bare module (not wrapped in DDP) on `device`.
        batch_size: samples per forward pass on each device.
        workers: loader processes of each rank.
    """
    rank, world = _rank_and_world()
    mine = _share(len(rows), batch_size, rank, world)
    table = _detect(detector, index, rows, mine, data, device, batch_size, workers, on_progress)
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


def _share(count: int, batch_size: int, rank: int, world: int) -> list[int]:
    """Positions 0..count that `rank` works on: whole batches, dealt in turn."""
    starts = range(rank * batch_size, count, world * batch_size)
    return [position for start in starts for position in range(start, min(start + batch_size, count))]


def _detect(
    detector: Detector,
    index: SceneIndex,
    rows: Sequence[int],
    mine: Sequence[int],
    data: DataConfig,
    device: torch.device,
    batch_size: int,
    workers: int,
    on_progress: ProgressHook | None,
) -> Tensor:
    """Table float64 `[boxes, 12]` of what this process found; float32 values survive in it unchanged."""
    dataset = SceneDataset(index, [int(rows[position]) for position in mine], data, training=False, seed=0)
    loader: DataLoader[Batch] = DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate, pin_memory=device.type == "cuda"
    )
    pieces = [torch.empty(0, _COLUMNS, dtype=torch.float64)]
    done = 0
    was_training = detector.training
    detector.eval()
    try:
        with torch.inference_mode():
            for batch in loader:
                found = detector.decode(detector(batch.to(device, non_blocking=True)))
                for detections in found:
                    pieces.append(_to_table(detections, mine[done]))
                    done += 1
                if on_progress is not None:
                    on_progress(done, len(mine))
    finally:
        detector.train(was_training)
    return torch.cat(pieces)


def _to_table(detections: Detections, position: int) -> Tensor:
    columns = [
        detections.boxes.double(),
        detections.scores.double()[:, None],
        detections.labels.double()[:, None],
        torch.full((len(detections.scores), 1), position, dtype=torch.float64, device=detections.boxes.device),
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


def _by_token(table: Tensor, index: SceneIndex, rows: Sequence[int]) -> dict[str, GlobalBoxes]:
    """Boxes of each sample in the order of `rows`, moved to the global frame with the key frame's pose."""
    positions = table[:, -1].long()
    table = table[torch.argsort(positions, stable=True)]
    pieces = torch.split(table, torch.bincount(positions, minlength=len(rows)).tolist())
    predictions = {}
    for row, piece in zip(rows, pieces, strict=True):
        frame = index.frame(int(row))
        detections = Detections(boxes=piece[:, :_BOX].float(), scores=piece[:, 9].float(), labels=piece[:, 10].long())
        predictions[frame.token] = from_detections(detections, frame.global_from_ego)
    return predictions
