"""What a run does about steps that are not finite and samples that cannot be read, as the recipe's guards say."""

from __future__ import annotations

from collections.abc import Sequence

from configs.errors import BevnextError, DataError
from configs.schema import GuardConfig
from scenes.sample import Batch

from .checkpoint_writer import CheckpointWriter
from .fault import StepFault
from .reporter import SilentReporter
from .state import TrainingState
from .trainer import StepReport
from .world import World


class Guards:
    """Looks at every step's report; all processes come to the same decision."""

    def __init__(
        self,
        config: GuardConfig,
        state: TrainingState,
        writer: CheckpointWriter,
        world: World,
        reporter: SilentReporter,
    ) -> None:
        self.config = config
        self.state = state
        self.writer = writer
        self.world = world
        self.reporter = reporter
        self.damaged: set[str] = set()
        """Samples that could not be read since the start."""

    def after_step(self, report: StepReport, micro_batches: Sequence[Batch]) -> None:
        """Act on what went wrong in the step just done.

        Raises:
            BevnextError: the recipe ends the run here, or a limit is exceeded.
        """
        if report.damaged:
            self._count_damaged(micro_batches)
        if report.fault:
            self._answer(report.fault)

    def _count_damaged(self, micro_batches: Sequence[Batch]) -> None:
        found = set(self.world.all_tokens(batch.damaged for batch in micro_batches)) - self.damaged
        if not found:
            return
        self.damaged |= found
        self.reporter.skipped_samples(self.state.step, sorted(found), len(self.damaged))
        if len(self.damaged) > self.config.damaged_limit:
            raise DataError(
                f"{len(self.damaged)} samples cannot be read, engine.guards.damaged_limit is "
                f"{self.config.damaged_limit}: {', '.join(sorted(self.damaged))}",
                fix="`bevnext-sam2 data check --deep` lists every damaged file; or raise the limit",
            )

    def _answer(self, fault: StepFault) -> None:
        """Stop, skip or rewind. The step stays counted, so the run goes on with the samples that follow."""
        self.state.faults += 1
        where = f"step {self.state.step}: {fault.reason}; samples: {', '.join(fault.tokens)}"
        if self.config.non_finite == "stop":
            self.reporter.fault(self.state.step, fault, "the run ends")
            raise BevnextError(
                where,
                fix="look at these samples, or lower the learning rate; --set engine.guards.non_finite=skip passes "
                "over such steps; the last checkpoint is from before this step",
            )
        if self.state.faults > self.config.non_finite_limit:
            raise BevnextError(
                f"{where}; engine.guards.non_finite_limit of {self.config.non_finite_limit} is exceeded",
                fix="look at these samples, or lower the learning rate; training seems to diverge",
            )
        answer = "skipped: the weights are as before" if self.config.non_finite == "skip" else self._rewind(where)
        self.reporter.fault(self.state.step, fault, answer)

    def _rewind(self, where: str) -> str:
        """Put back the weights of the newest checkpoint; the samples since then are passed over."""
        step, faults = self.state.step, self.state.faults
        self.writer.finish()
        folder = self.writer.folder
        found = folder.newest_valid()[0] if self.world.is_main else None
        name = self.world.text_from_main(found.name if found else "")
        if not name:
            raise BevnextError(
                f"{where}; there is no checkpoint to go back to yet",
                fix="--set engine.checkpoint_every=N with a smaller N, or engine.guards.non_finite=skip",
            )
        self.state.restore(folder.folder / name, step)
        self.state.faults = faults
        return f"rewound: the weights are those of {name}"
