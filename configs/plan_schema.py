"""What goes into a plan and what comes out: devices, measurements, options, and the plan itself, all JSON-able."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

LrRule = Literal["linear", "sqrt", "none"]
Precision = Literal["fp32", "bf16", "fp16"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeviceFacts(_Frozen):
    """What is there to compute on: the visible devices of one kind, and the machine around them."""

    kind: str = "cpu"
    """torch's device type: `cpu`, `cuda`, `xpu`, ..."""
    names: tuple[str, ...] = ("CPU",)
    """One name per visible device; the CPU counts as one."""
    memory_bytes: NonNegativeInt | None = None
    cpu_cores: PositiveInt = 1
    """Cores that this process may use."""
    shared_memory_bytes: NonNegativeInt | None = None
    """Free space of /dev/shm; `None` where it cannot be told."""
    bf16: bool = True


class Measured(_Frozen):
    """Figures of an earlier run or benchmark on such a device."""

    source: str
    """Where the figures come from, for the reader of the plan."""
    samples_per_second: PositiveFloat | None = None
    """Training samples per second of one device, typically."""
    slowest_samples_per_second: PositiveFloat | None = None
    """The same when it was slowest."""
    checkpoint_seconds: PositiveFloat | None = None
    """The longest that a checkpoint took to be safe on disk."""


class PlanOptions(_Frozen):
    """What the user asked for; `None` leaves the choice to the plan. Each field is an option of the command line."""

    device: str | None = None
    gpus: tuple[NonNegativeInt, ...] | None = None
    num_devices: PositiveInt | None = None
    distributed: Literal["auto", "ddp", "dp"] | None = None
    """One process per device always; `dp` is an old name for it."""
    nodes: PositiveInt | None = None
    min_nodes: PositiveInt | None = None
    """Fewest machines to run on; `nodes` are the most then."""
    batch_size: PositiveInt | Literal["auto"] | None = None
    """`auto` asks for the largest that fits into the memory of the devices."""
    effective_batch: PositiveInt | None = None
    gradient_accumulation: PositiveInt | None = None
    lr_scaling: LrRule | None = None
    epochs: PositiveInt | None = None
    precision: Literal["fp32", "bf16", "fp16", "mixed", "unmixed"] | None = None
    """`mixed` is bf16 where the device has it, else fp16; `unmixed` is fp32."""
    workers: NonNegativeInt | None = None
    threads: PositiveInt | None = None
    grace_seconds: PositiveInt | None = None


class NodeShare(_Frozen):
    """How the same optimiser step is split where another number of machines takes part."""

    nodes: PositiveInt
    device_batch: PositiveInt
    accumulation: PositiveInt


class Plan(_Frozen):
    """What will run. `origins` says for every value where it comes from."""

    recipe: str
    device_kind: str
    device_names: tuple[str, ...]
    device_ids: tuple[NonNegativeInt, ...]
    """Index of each process's device among the visible ones of its node; processes on a CPU share device 0."""
    nodes: PositiveInt
    """Machines; all are taken to be like this one."""
    devices: PositiveInt
    """Processes on all nodes, one per device (or per share of the CPU's cores)."""
    device_batch: PositiveInt
    accumulation: PositiveInt
    effective_batch: PositiveInt
    reference_batch: PositiveInt
    learning_rate: PositiveFloat
    base_learning_rate: PositiveFloat
    lr_rule: LrRule
    lr_factor: PositiveFloat
    warmup_steps: NonNegativeInt
    epoch_samples: PositiveInt
    steps_per_epoch: PositiveInt
    epochs: PositiveInt
    total_steps: PositiveInt
    precision: Precision
    workers: NonNegativeInt
    """Loader processes per device."""
    threads: PositiveInt
    """Compute threads per process (OMP_NUM_THREADS)."""
    images_per_sample: PositiveInt
    samples_per_second: PositiveFloat | None
    """Training samples per second of all devices together, where someone measured them."""
    images_per_second: PositiveFloat | None
    """What the loaders of all devices must deliver together."""
    shared_memory_bytes: NonNegativeInt
    """What the loaders of one node need of /dev/shm."""
    grace_seconds: PositiveInt
    """Time that a stopped run needs at most to finish its step and save."""
    node_shares: tuple[NodeShare, ...] = ()
    """An elastic run: every number of machines it may go on with. Empty where the number is fixed."""
    batch_candidates: tuple[PositiveInt, ...] = ()
    """What `device_batch` is to be chosen from by trying before anything is trained, ascending. Empty: it is chosen."""
    warnings: tuple[str, ...] = ()
    origins: dict[str, str] = Field(default_factory=dict)

    @property
    def devices_per_node(self) -> int:
        """Processes that torchrun starts on each machine."""
        return self.devices // self.nodes

    def on_nodes(self, nodes: int) -> Plan:
        """The plan of the same optimiser step on another number of machines that it allows for. Raises `KeyError`."""
        share = {share.nodes: share for share in self.node_shares}[nodes]
        local, speed = self.devices_per_node, self.samples_per_second
        return self.model_copy(
            update={
                "nodes": nodes,
                "devices": nodes * local,
                "device_ids": self.device_ids[:local] * nodes,
                "device_names": self.device_names[:local] * nodes,
                "device_batch": share.device_batch,
                "accumulation": share.accumulation,
                "samples_per_second": speed and speed * nodes / self.nodes,
                "images_per_second": self.images_per_second and self.images_per_second * nodes / self.nodes,
                "origins": {**self.origins, "nodes": "found: the machines that take part"},
            }
        )
