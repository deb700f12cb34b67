"""The typed schema of a recipe: what a YAML file in this folder may say, with the published values as defaults.

A recipe is read with `yaml.safe_load`, checked here, and saved resolved with every run. Unknown keys are errors that
name the closest known one. Lengths are metres, angles degrees, images `(height, width)` pixels.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from configs.nuscenes import CAMERAS, CLASSES


class Section(BaseModel):
    """A part of a recipe: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- data --------------------------------------------------------------------------------------------------------


class ImageAugmentation(Section):
    """Random resize, crop, flip and rotation of camera images (BEVDet's recipe).

    The resize factor is `width_out / width_source + uniform(*resize)`; the crop keeps the bottom rows.
    """

    resize: tuple[float, float] = (-0.06, 0.11)
    rotate_degrees: tuple[float, float] = (-5.4, 5.4)
    flip: bool = True


class BevAugmentation(Section):
    """Random rotation, scaling and flips of the BEV frame and everything in it (BEVDet's recipe)."""

    rotate_degrees: tuple[float, float] = (-22.5, 22.5)
    scale: tuple[float, float] = (0.95, 1.05)
    flip_x: bool = True
    flip_y: bool = True


class StreamingConfig(Section):
    """Training along scenes: a frame's BEV map is made once, and carried on to the samples that follow in its scene.

    Not part of the published BEVNeXt; SOLOFusion (arXiv 2210.02443) and StreamPETR (arXiv 2303.11926) train so.
    """

    chunk: PositiveInt = 20
    """Most samples that are walked at a stretch. A longer scene is cut evenly; every part begins without a past."""


class DataConfig(Section):
    """Which samples are read, and what the loader makes of them."""

    version: str = "v1.0-trainval"
    train_split: str = "train"
    val_split: str = "val"
    cameras: tuple[str, ...] = CAMERAS
    source_size: tuple[PositiveInt, PositiveInt] = (900, 1600)
    image_size: tuple[PositiveInt, PositiveInt] = (256, 704)
    whole_size: tuple[PositiveInt, PositiveInt] | None = None
    """Size that whole images without augmentation are shipped at beside the others, for SAM 2; `null` ships none."""
    frames: PositiveInt = 1
    """Key frames a sample holds: the current one and `frames - 1` before it."""
    image_augmentation: ImageAugmentation | None = ImageAugmentation()
    bev_augmentation: BevAugmentation | None = BevAugmentation()
    box_range: PositiveFloat = 51.2
    """Boxes are kept while |x| and |y| of their centre are below this."""
    depth_stride: PositiveInt = 8
    depth_range: tuple[float, float] = (1.0, 60.0)
    class_balanced: bool = True
    """Class-balanced grouping and sampling (CBGS), drawn once from the seed."""
    streaming: StreamingConfig | None = None
    """Walk scenes in order and carry earlier frames on; `null`, as published, encodes them again for every sample."""

    @property
    def frames_read(self) -> int:
        """Frames of a training sample whose images are read: one where the earlier ones are carried on."""
        return 1 if self.streaming else self.frames

    @model_validator(mode="after")
    def _streaming_fits(self) -> DataConfig:
        if self.streaming and self.class_balanced:
            raise ValueError(
                "data.streaming walks scenes in order, and data.class_balanced draws single samples of them",
                "set data.class_balanced=false",
            )
        if self.streaming and self.frames == 1:
            raise ValueError(
                "data.streaming carries earlier frames on, and data.frames = 1 uses none",
                "set data.streaming=null, or use a recipe of several frames, such as bevnext/bevnext-stage2-streaming",
            )
        return self


# --- model -------------------------------------------------------------------------------------------------------


class BackboneConfig(Section):
    """A residual network with torchvision's parameter names."""

    kind: Literal["resnet18", "resnet50"] = "resnet50"
    width: PositiveInt = 64
    """Channels of the stem; 64 is the published width."""
    weights: str | None = None
    """Torchvision or detector weights, a file or a name of `checkpoints list`, loaded by name; `null` for none."""
    checkpointing: bool = True
    """Recompute activations in the backward pass (as published, to save memory)."""


class DepthConfig(Section):
    """Depth bins of the frustum `[lower, upper, step)` and the depth network."""

    bins: tuple[float, float, float] = (1.0, 60.0, 0.5)
    channels: PositiveInt = 256
    checkpointing: bool = True
    """As `BackboneConfig.checkpointing`, for the depth branch."""
    loss_weight: float = 3.0


class CrfConfig(Section):
    """Mean-field CRF that couples the depth of equally coloured neighbour cells."""

    iterations: int = Field(20, ge=0)
    zeta: PositiveFloat = 0.001
    weight: PositiveFloat = 0.015
    trainable: bool = True


class BevGridConfig(Section):
    """The BEV raster: `(lower, upper, step)` along each axis of the ego frame."""

    x: tuple[float, float, float] = (-51.2, 51.2, 0.8)
    y: tuple[float, float, float] = (-51.2, 51.2, 0.8)
    z: tuple[float, float, float] = (-5.0, 3.0, 8.0)
    channels: PositiveInt = 80
    pooling: Literal["sum", "mean"] = "sum"
    """What a cell makes of the points that fall into it. As published the sum, which near cells get hundreds of times
    more of than far ones; the mean evens that out, for short training from scratch."""

    @field_validator("x", "y")
    @classmethod
    def _encoder_can_halve_it(cls, bounds: tuple[float, float, float]) -> tuple[float, float, float]:
        lower, upper, step = bounds
        cells = (upper - lower) / step if step > 0 else 0.0
        if cells < 0.5 or abs(cells / 8 - round(cells / 8)) > 1e-6:
            raise ValueError(
                f"[{lower:g}, {upper:g}, {step:g}] makes {cells:g} cells, and the BEV encoder halves them three times",
                "choose bounds and step that make a multiple of 8 cells, such as [-51.2, 51.2, 0.8]",
            )
        return bounds


class TemporalFusionConfig(Section):
    """How the BEV maps of several frames become one: groups of consecutive frames, joined from the oldest on."""

    groups: int = Field(3, ge=2)
    """`data.frames` is a multiple of it."""
    group_channels: PositiveInt = 60


class BevEncoderConfig(Section):
    """Residual BEV backbone and its feature pyramid."""

    fusion: TemporalFusionConfig | None = None
    """Joins several frames, and makes the backbone a Res2Net (stage 2); `null` for one frame."""
    stage_channels: tuple[PositiveInt, PositiveInt, PositiveInt] = (160, 320, 640)
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2)
    neck_channels: PositiveInt = 512
    out_channels: PositiveInt = 256


class RefinementConfig(Section):
    """Perspective refinement: every BEV cell looks at the image features below its column of anchors."""

    heads: PositiveInt = 8
    anchors: PositiveInt = 8
    feedforward_ratio: PositiveInt = 4


class PerspectiveConfig(Section):
    """Supervision of the image branch before anything is lifted, for training from scratch.

    The first context channels are read as logits of the ten classes and of background, at the image cells that a LiDAR
    point fell into. Not part of the published BEVNeXt; perspective supervision of a BEV detector as such is BEVFormer
    v2's (arXiv 2211.10439).
    """

    loss_weight: PositiveFloat = 1.0
    class_weights: tuple[PositiveFloat, ...] = Field(
        (1.0,) * (len(CLASSES) + 1), min_length=len(CLASSES) + 1, max_length=len(CLASSES) + 1
    )
    """What a cell counts, by class in the order of `configs.nuscenes.CLASSES`, the background last: a cone covers a
    fiftieth of the cells that a bus does."""
    only: bool = False
    """Train the image branch alone (depth and classes), which is much faster: a start for the whole network."""


class HeadConfig(Section):
    """Centre heads, their loss weights, and how boxes are read from the maps."""

    channels: PositiveInt = 64
    heatmap_bias: float | None = None
    """Initial bias of the heat map; `null` keeps the published behaviour (PyTorch's default, not -2.19)."""
    regression_weight: float = 0.25
    velocity_weight: float = 0.2
    score_threshold: float = 0.1
    max_candidates: PositiveInt = 500
    max_per_task: PositiveInt = 83


class BEVNeXtConfig(Section):
    """BEVNeXt; the defaults are the published stage 1. Stage 2 has `bev_encoder.fusion` and other channels."""

    family: Literal["bevnext"] = "bevnext"
    backbone: BackboneConfig = BackboneConfig()
    neck_channels: PositiveInt = 512
    depth: DepthConfig = DepthConfig()
    crf: CrfConfig = CrfConfig()
    bev: BevGridConfig = BevGridConfig()
    bev_encoder: BevEncoderConfig = BevEncoderConfig()
    refinement: RefinementConfig = RefinementConfig()
    head: HeadConfig = HeadConfig()
    perspective: PerspectiveConfig | None = None
    weights: str | None = None
    """Weights of this very network to start from: a file, or a name of `checkpoints list`."""
    hand_over: str | None = None
    """Weights of another stage to start from, likewise: what has the same name and shape is copied, the rest is new."""
    bgr_input: bool = True
    """Published quirk: channels are swapped to BGR, then normalised with the RGB mean and deviation."""
    double_statistics: bool = True
    """Published quirk: blocks of backbone and depth network count the key frame's batch statistics twice (momentum 0.19
    instead of 0.1), as recomputing them did; `true` also does so where `checkpointing` is off, `false` never does."""

    @model_validator(mode="after")
    def _one_start(self) -> BEVNeXtConfig:
        starts = {"weights": self.weights, "hand_over": self.hand_over, "backbone.weights": self.backbone.weights}
        named = [f"{place} = {value}" for place, value in starts.items() if value is not None]
        if len(named) > 1:
            raise ValueError(
                f"a network starts from one of them: {', '.join(named)}",
                f"set the others to null, such as --set model.{named[-1].split(' ')[0]}=null",
            )
        return self


# --- SAM 2 in the detector ---------------------------------------------------------------------------------------


class Sam2Config(Section):
    """Features of SAM 2's image encoder in the detector's image branch."""

    config: str = "sam2.1_hiera_t"
    """SAM 2 configuration: a published name, `sam2_hiera_nano`, or a file."""
    weights: str | None = None
    """Its weights: a file, or a name of `checkpoints list`."""
    random: bool = False
    """Use random weights in place of `weights`: the control that tells knowledge from mere capacity."""
    mode: Literal["shared", "native", "backbone"] = "shared"
    """A frozen SAM 2 beside the image backbone, on the same images; the same on whole images without augmentation, of
    `data.whole_size`, sampled where the detector's cells lie; or its trunk in the place of the backbone."""
    strides: tuple[Literal[4, 8, 16, 32], ...] = (8, 16, 32)
    """Maps of the image branch that features are added to; BEVNeXt has 8, 16 and 32."""
    adapter_channels: PositiveInt = 128
    unfreeze_at_epoch: int | None = Field(None, ge=0)
    """Epoch, counted from 0, with which the last stage of SAM 2's trunk and its norms begin to train; `null`: never."""
    unfreeze_multiplier: PositiveFloat = 0.05
    """Their learning rate over the detector's."""

    @model_validator(mode="after")
    def _something_is_frozen(self) -> Sam2Config:
        if self.mode == "backbone" and self.unfreeze_at_epoch is not None:
            raise ValueError(
                "sam2.unfreeze_at_epoch: in mode backbone SAM 2's trunk trains from the first step",
                "leave it out, or use mode shared",
            )
        return self


# --- optimisation ------------------------------------------------------------------------------------------------


class OptimizerConfig(Section):
    """AdamW, and the batch its learning rate was published for."""

    learning_rate: PositiveFloat = 2e-4
    reference_batch: PositiveInt = 64
    """Samples per optimiser step of the recipe, over all devices and accumulation."""
    device_batch: PositiveInt = 8
    """Most samples of one micro-batch on one device, where no option says otherwise."""
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    backbone_multiplier: PositiveFloat = 1.0
    clip_norm: PositiveFloat = 5.0
    frozen: tuple[str, ...] = ()
    """Parts of the detector that keep the weights they start with, such as `img_backbone` or `img_backbone.layer1`."""


class ScheduleConfig(Section):
    """How long, and how the learning rate moves: linear warm-up, then `shape`."""

    epochs: PositiveInt = 2
    warmup_steps: int = Field(200, ge=0)
    warmup_ratio: PositiveFloat = 0.001
    shape: Literal["constant", "cosine", "linear"] = "constant"
    final_ratio: float = Field(0.0, ge=0.0, le=1.0)
    """Last rate over the peak rate, for the shapes that decay."""


class EmaConfig(Section):
    """Exponential moving average `decay * (1 - exp(-updates / ramp))`, updates counted from `init_updates`."""

    decay: float = Field(0.999, gt=0.0, lt=1.0)
    ramp: PositiveFloat = 2000.0
    init_updates: int = Field(10560, ge=0)


class SyncBnConfig(Section):
    """Batch normalisation over the micro-batches of all devices, as the published stage 2 ends."""

    from_epoch: int = Field(8, ge=0)
    """Epoch, counted from 0, with which it begins; before it statistics are each device's own."""


class GuardConfig(Section):
    """What a run does about steps and samples that are bad, and about processes that hang."""

    non_finite: Literal["stop", "skip", "rewind"] = "stop"
    """A loss or gradient that is not finite: end the run, leave the weights as they were, or put back the last
    checkpoint's. The run goes on with the samples that follow, in both cases."""
    non_finite_limit: PositiveInt = 10
    """Steps of a run that may be skipped or rewound; the next one ends it."""
    damaged_samples: Literal["error", "skip"] = "error"
    """A sample whose files are missing or damaged: end the run, or let the next one of the split stand in."""
    damaged_limit: PositiveInt = 10
    """Different samples that may be skipped in one start of a run; the next one ends it."""
    hang_seconds: PositiveFloat | None = 900.0
    """A process without progress for so long is taken to hang, and the run ends with code 77; `null` waits."""


class EngineConfig(Section):
    """The rest of a run: precision, seed, averaging, checkpoints, evaluation."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0
    ema: EmaConfig | None = EmaConfig()
    sync_bn: SyncBnConfig | None = None
    channels_last: bool = True
    log_every: PositiveInt = 10
    """Optimiser steps between two lines of the log."""
    checkpoint_every: int = Field(0, ge=0)
    """Optimiser steps between checkpoints; 0 writes one at the end of each epoch."""
    checkpoint_writing: Literal["auto", "sync", "async"] = "auto"
    """Steps wait until a checkpoint is on disk, or only until it is copied to main memory; `auto` is `async` on an
    accelerator, and `sync` on the CPU, where the writer takes its time from computing (a gigabyte costs 4.1 s instead
    of 5.1 s there, and a second copy of the state)."""
    keep_last: PositiveInt = 2
    """Newest checkpoints that are kept."""
    keep_best: PositiveInt = 1
    """Checkpoints with the highest NDS that are kept beside them."""
    evaluate_every: int | None = Field(0, ge=0)
    """Epochs between evaluations on the validation split; 0 evaluates once, at the end, `null` never."""
    guards: GuardConfig = GuardConfig()


class Recipe(Section):
    """A published (or synthetic) training recipe."""

    name: str
    summary: str = ""
    source: str = ""
    """Where the hyper-parameters come from."""
    model: BEVNeXtConfig = BEVNeXtConfig()
    sam2: Sam2Config | None = None
    """SAM 2's features in the detector; `null` leaves the detector as it is."""
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    engine: EngineConfig = EngineConfig()

    @model_validator(mode="after")
    def _whole_images_for_native(self) -> Recipe:
        if self.sam2 and self.sam2.mode == "native" and self.data.whole_size is None:
            raise ValueError(
                "sam2.mode=native: SAM 2 needs whole images, and data.whole_size is null",
                "give their height and width, multiples of 32, such as data.whole_size=[512, 896]",
            )
        return self

    @model_validator(mode="after")
    def _nothing_random_is_frozen(self) -> Recipe:
        model = self.model
        if self.optimizer.frozen and not (model.weights or model.hand_over or model.backbone.weights):
            raise ValueError(
                f"optimizer.frozen: {', '.join(self.optimizer.frozen)} would keep random weights",
                "name the weights to start from, with --set model.weights=FILE",
            )
        return self
