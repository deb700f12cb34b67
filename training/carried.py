"""What detectors that are trained along scenes remember, in checkpoints.

The maps that are carried on were made with the weights of steps long gone, so nobody can make them again: a checkpoint
within an epoch holds them. With an epoch all walks begin anew, and nothing is left to be carried.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from configs.errors import UsageError
from configs.plan import Plan
from scenes.order import BatchLayout

from .state import CARRIED, TrainingState
from .world import World


def carried_by_all(state: TrainingState, plan: Plan, world: World) -> dict[str, Tensor] | None:
    """What the detectors of all ranks remember, in rank 0's main memory, or `None`; all ranks call this."""
    if state.detector.memory is None or state.step % plan.steps_per_epoch == 0:
        return None
    return world.tensors_on_main(state.detector.memory.state())


def take_up_carried(state: TrainingState, checkpoint: Path, plan: Plan, layout: BatchLayout) -> None:
    """Let the detector remember what the checkpoint holds of this rank's slots, whichever rank they had.

    Raises:
        UsageError: a checkpoint within an epoch that walked where this recipe does not, or the other way round.
    """
    if state.step % plan.steps_per_epoch == 0:
        return
    memory, held = state.detector.memory, checkpoint / CARRIED
    if (memory is not None) != held.is_file():
        walked = "along scenes" if held.is_file() else "not along scenes"
        raise UsageError(
            f"{checkpoint} was saved within an epoch {walked}, and this recipe's data.streaming says otherwise",
            fix="use the recipe it was trained with, or a checkpoint at an epoch's end",
        )
    if memory is not None:
        slots = {slot for number in range(layout.accumulation) for slot in layout.offsets(number)}
        with safe_open(held, "pt") as file:
            names = file.keys()
            own = {name: file.get_tensor(name) for name in names if int(name.partition(".")[0]) in slots}
        memory.take_up(own, next(state.detector.parameters()).device)
