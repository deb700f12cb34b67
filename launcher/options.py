"""The options that `plan` and `train` share, so that one word turns the preview into the run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from configs.remote_location import DataRoot

Function = Callable[..., Any]
DEFAULT_IMAGE: Final = "bevnext-sam2:0.1.0"
DIRECTORY: Final = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the user asked for; `None` where an option was left out."""

    config: str | None = None
    overrides: tuple[str, ...] = ()
    data_root: Path | None = None
    version: str | None = None
    index_dir: Path | None = None
    device: str = "auto"
    num_gpus: int | None = None
    gpus: tuple[int, ...] | None = None
    num_processes: int | None = None
    distributed: str | None = None
    batch_size: int | str | None = None
    gradient_accumulation: int | None = None
    effective_batch: int | None = None
    lr_scaling: str | None = None
    epochs: int | None = None
    mixed_precision: bool | None = None
    precision: str | None = None
    workers: int | None = None
    output_dir: Path = Path("outputs")
    run: str | None = None
    resume: str = "none"
    grace_seconds: int | None = None
    retries: int = 0
    max_restarts: int = 0
    nnodes: tuple[int, int] | None = None
    """Fewest and most machines."""
    node_rank: int | None = None
    rdzv_endpoint: str | None = None
    master_port: int | None = None
    backend: str = "local"
    cpus_per_node: int | None = None
    slurm: tuple[str, ...] = ()
    image: str = DEFAULT_IMAGE
    namespace: str | None = None
    data_claim: str | None = None
    output_claim: str | None = None
    manifests: Path = Path()
    container_name: str | None = None
    network: str | None = None
    detach: bool = False
    profile: tuple[int, int] | None = None
    """First and last step to record."""
    basic_training: bool = False
    dry_run: bool = False
    as_json: bool = False


def _gpu_list(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    del context, option
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of GPU numbers such as 0,1") from None


def _batch_size(context: click.Context, option: click.Parameter, text: str | None) -> int | str | None:
    del context, option
    if text is None or text == "auto":
        return text
    if re.fullmatch(r"[1-9][0-9]*", text):
        return int(text)
    raise click.BadParameter(f"{text!r} is neither a number of samples nor auto")


def _range(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    del context, option
    if text is None:
        return None
    found = re.fullmatch(r"(?P<low>[1-9][0-9]*)(:(?P<high>[1-9][0-9]*))?", text)
    if found and int(found["low"]) <= int(found["high"] or found["low"]):
        return int(found["low"]), int(found["high"] or found["low"])
    raise click.BadParameter(f"{text!r} is neither a number nor a range such as 1:4")


def _run_name(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    del context, option
    if text is not None and (not text.strip() or "/" in text or text in (".", "..")):
        raise click.BadParameter(f"{text!r} is not the name of one folder; --output-dir chooses where it lies")
    return text


def _endpoint(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    del context, option
    if text is not None and not (text.rpartition(":")[0] and text.rpartition(":")[2].isdigit()):
        raise click.BadParameter(f"{text!r} is not of the form HOST:PORT")
    return text


def _container_name(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    del context, option
    if text is not None and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", text):
        raise click.BadParameter(f"{text!r} is no name for a container: use letters, digits, dots, dashes, underscores")
    return text


def _settings(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    del context, option
    for text in texts:
        if not re.fullmatch(r"[a-z][a-z0-9-]*(=[^\x00-\x1f]*)?", text):
            raise click.BadParameter(f"{text!r} is not of the form KEY=VALUE, such as partition=gpu")
    return texts


_POSITIVE: Final = click.IntRange(min=1)
_PORT: Final = click.IntRange(1, 65535)

# In the order of `--help`: what to train, on which data, on which devices, which step, where to, on several machines.
_OPTIONS: Final = (
    click.option(
        "--config",
        metavar="NAME|PATH",
        help="Recipe: a name such as bevnext/bevnext-stage1, or a YAML file. Default: the recipe of the run that is "
        "resumed; synthetic/bevnext-tiny on synthetic data; bevnext/bevnext-stage1 on a data set of yours.",
    ),
    click.option(
        "--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the recipe; repeatable."
    ),
    click.option(
        "--data-root",
        "--data-path",
        type=DataRoot(),
        metavar="DIR|s3://...",
        help="Root of a data set in nuScenes format. Default: data/synthetic, made when it is not there.",
    ),
    click.option("--version", metavar="NAME", help="Version of the data set, e.g. v1.0-mini. Default: the recipe's."),
    click.option("--index-dir", type=DIRECTORY, metavar="DIR", help="Where indexes lie. Default: <data root>/index."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="auto takes the GPUs where there are any, and says what it found.",
    ),
    click.option("--gpu", "device", flag_value="cuda", help="Same as --device cuda."),
    click.option("--no-gpu", "device", flag_value="cpu", help="Same as --device cpu."),
    click.option("--num-gpus", type=_POSITIVE, metavar="N", help="The first N visible GPUs. Default: all."),
    click.option("--gpus", callback=_gpu_list, metavar="LIST", help="These GPUs, e.g. 0,2."),
    click.option("--num-processes", type=_POSITIVE, metavar="N", help="Processes on the CPU. Default: at most 2."),
    click.option(
        "--distributed",
        is_flag=False,
        flag_value="auto",
        type=click.Choice(["auto", "ddp", "dp"]),
        help="One process per device always; dp is an old name, accepted with a note.",
    ),
    click.option(
        "--batch-size",
        callback=_batch_size,
        metavar="N|auto",
        help="Samples of a micro-batch on one device. auto tries out the largest that fits into its memory.",
    ),
    click.option("--gradient-accumulation", type=_POSITIVE, metavar="N", help="Micro-batches of an optimiser step."),
    click.option(
        "--effective-batch", type=_POSITIVE, metavar="N", help="Samples of an optimiser step. Default: the recipe's."
    ),
    click.option(
        "--lr-scaling",
        type=click.Choice(["linear", "sqrt", "none"]),
        help="How the learning rate follows a changed effective batch. Default: not at all, with a warning.",
    ),
    click.option("--epochs", type=_POSITIVE, metavar="N", help="Passes over the data. Default: the recipe's."),
    click.option(
        "--mixed-precision/--no-mixed-precision",
        default=None,
        help="bf16 (fp16 on GPUs without it), or fp32. Default: the recipe's.",
    ),
    click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="One precision by name."),
    click.option("--workers", type=click.IntRange(min=0), metavar="N", help="Loader processes per device."),
    click.option(
        "--output-dir",
        type=DIRECTORY,
        default=Path("outputs"),
        show_default=True,
        metavar="DIR",
        help="Folder of the run directories.",
    ),
    click.option("--run", callback=_run_name, metavar="NAME", help="Run directory in it. Default: the recipe's name."),
    click.option(
        "--resume",
        default="none",
        show_default=True,
        metavar="auto|PATH|none",
        help="auto goes on from the run's newest valid checkpoint and starts where there is none; PATH from that "
        "checkpoint or run; none starts a new run and refuses to touch an old one.",
    ),
    click.option(
        "--grace-seconds", type=_POSITIVE, metavar="N", help="Time from a stop signal to the kill. Default: the plan's."
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Start a run that crashed or hung again from its newest checkpoint, N times at most.",
    ),
    click.option(
        "--max-restarts",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="The same, done by torchrun; on several machines it restarts all of them.",
    ),
    click.option(
        "--nnodes",
        callback=_range,
        metavar="N|MIN:MAX",
        help="Machines; run the same command on each. A range goes on with those that are left.",
    ),
    click.option("--node-rank", type=click.IntRange(min=0), metavar="N", help="Number of this machine, from 0."),
    click.option("--rdzv-endpoint", callback=_endpoint, metavar="HOST:PORT", help="Where the machines meet."),
    click.option("--master-port", "--port", type=_PORT, metavar="N", help="Port for one machine. Default: a free one."),
    click.option(
        "--backend",
        type=click.Choice(["local", "docker", "slurm", "kubernetes"]),
        default="local",
        show_default=True,
        help="Where to train. docker starts a container on this machine; slurm writes and submits a job; kubernetes "
        "writes manifests of a Kubeflow TrainJob and of a plain Job. For the last two --num-gpus and --nnodes say what "
        "the job asks for.",
    ),
    click.option("--docker", "backend", flag_value="docker", help="Same as --backend docker."),
    click.option("--native", "backend", flag_value="local", help="Same as --backend local."),
    click.option(
        "--cpus-per-node",
        type=_POSITIVE,
        metavar="N",
        help="Cores a job asks for on each node. Default: 8 per process.",
    ),
    click.option(
        "--slurm", multiple=True, callback=_settings, metavar="KEY=VALUE", help="#SBATCH option, e.g. partition=gpu."
    ),
    click.option(
        "--image",
        "--docker-image",
        default=DEFAULT_IMAGE,
        show_default=True,
        help="Image of the container, here or in a Kubernetes job.",
    ),
    click.option(
        "--container-name",
        callback=_container_name,
        metavar="NAME",
        help="Name of the container. Default: of the run and the time.",
    ),
    click.option("--network", metavar="NAME", help="Network that the container joins, or host; for several machines."),
    click.option("--detach", is_flag=True, help="Leave the container training and return at once."),
    click.option("--namespace", metavar="NAME", help="Namespace of a Kubernetes job. Default: that of your context."),
    click.option("--data-claim", metavar="NAME", help="Volume claim mounted at --data-root, read-only."),
    click.option("--output-claim", metavar="NAME", help="Volume claim mounted at --output-dir."),
    click.option(
        "--manifests", type=DIRECTORY, default=Path(), metavar="DIR", help="Where the manifests go. Default: here."
    ),
    click.option(
        "--profile",
        callback=_range,
        metavar="FIRST:LAST",
        help="Record a trace of these optimiser steps in <run>/tensorboard/profile.",
    ),
    click.option(
        "--basic-training",
        is_flag=True,
        help="Start training/train_bevnext_sam2.py; the same trainer under its other name.",
    ),
    click.option("--dry-run", is_flag=True, help="Show the plan and the exact command line, and stop."),
    click.option("--json", "as_json", is_flag=True, help="The plan as JSON on standard output."),
)


def train_options(command: Function) -> Function:
    """Add the options; the command gets them as `request: TrainRequest`."""

    @wraps(command)
    def gather(**values: Any) -> Any:
        request = TrainRequest(**{field.name: values.pop(field.name) for field in fields(TrainRequest)})
        return command(request=request, **values)

    for option in reversed(_OPTIONS):
        gather = option(gather)
    return gather
