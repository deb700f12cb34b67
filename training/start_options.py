"""What the entry scripts are told. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.plan_schema import LrRule, PlanOptions


@dataclass(frozen=True)
class StartOptions:
    """The options of the entry scripts. The plan's are `None` where the user left them out."""

    run_dir: Path | None
    data_root: Path
    version: str | None
    index_dir: Path | None
    config: str
    config_given: bool
    overrides: tuple[str, ...]
    resume: str
    device: str | None
    gpus: tuple[int, ...] | None
    epochs: int | None
    batch_size: int | None
    gradient_accumulation: int | None
    lr_scaling: LrRule | None
    mixed_precision: bool | None
    workers: int | None
    threads: int | None
    profile: tuple[int, int] | None = None
    """First and last step to record."""

    def plan_options(self) -> PlanOptions:
        """Those that decide over the plan."""
        precision = {None: None, True: "mixed", False: "fp32"}[self.mixed_precision]
        return PlanOptions.model_validate(
            {
                "device": self.device,
                "gpus": self.gpus,
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "gradient_accumulation": self.gradient_accumulation,
                "lr_scaling": self.lr_scaling,
                "precision": precision,
                "workers": self.workers,
                "threads": self.threads,
            }
        )
