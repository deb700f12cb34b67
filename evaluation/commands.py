"""`eval`, `infer`, `demo` and `report`: options and help. The work, and torch with it, is imported when they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from configs.mask_weights import choose_mask_weights
from evaluation.options import (
    DataChoice,
    Function,
    MaskChoice,
    ModelChoice,
    data_options,
    mask_options,
    model_options,
)

_FOLDER = click.Path(path_type=Path, file_okay=False)


def _score_threshold(what_happens: str) -> Callable[[Function], Function]:
    return click.option(
        "--score-threshold",
        type=click.FloatRange(0, 1),
        default=0.3,
        show_default=True,
        help=f"Detections below it are {what_happens}",
    )


@click.command("eval")
@model_options
@data_options
@click.option("--split", metavar="NAME", help="Split to evaluate. Default: the recipe's validation split.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Score this nuScenes results file instead of running a detector.",
)
@click.option(
    "--pictures",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Draw N samples of the split as well, predictions over ground truth.",
)
@click.option(
    "--out",
    type=_FOLDER,
    metavar="DIR",
    help="Where results and scores go. Default: <run>/results/<checkpoint>, outputs/eval/<weights>, or beside "
    "--results.",
)
@click.option(
    "--as-published",
    is_flag=True,
    help="Write a second results file in the convention of the authors' program, to compare with theirs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON and nothing else on standard output.")
def eval_command(
    model: ModelChoice,
    data: DataChoice,
    split: str | None,
    results: Path | None,
    pictures: int,
    out: Path | None,
    as_published: bool,
    as_json: bool,
) -> None:
    """Official nuScenes detection metrics of a run, of a weights file, or of a results file.

    Shows NDS, mAP, the five true-positive errors and the AP of each class as the nuscenes-devkit computes them, and
    writes them, with the results file, to metrics.json.

    \b
    bevnext-sam2 eval --run outputs/my-run
    bevnext-sam2 eval --config bevnext/bevnext-stage1 --checkpoint weights.pth --data-root /data/nuscenes
    bevnext-sam2 eval --results results_nusc.json --data-root /data/nuscenes --version v1.0-trainval --split val
    torchrun --nproc-per-node 8 -m launcher eval --run outputs/my-run        (on eight devices)

    Exit codes: 0 done, 2 bad option or recipe, 3 bad data, 1 anything else.
    """
    if results is None:
        model.check()
    from evaluation.run_eval import run_eval

    run_eval(
        model,
        data,
        split=split,
        results=results,
        pictures=pictures,
        out=out,
        as_published=as_published,
        as_json=as_json,
    )


@click.command("infer")
@model_options
@data_options
@mask_options
@click.option("--scene", metavar="NAME", help="Scene to work on, by name or token.")
@click.option("--sample", metavar="TOKEN", help="One sample to work on, by its token.")
@_score_threshold("not drawn; the results file holds them all.")
@click.option(
    "--masks/--no-masks",
    default=None,
    help="SAM 2's mask of every object, drawn and in masks.json. Default: only with --sam2-weights.",
)
@click.option("--truth/--no-truth", default=True, show_default=True, help="Draw the annotations as well.")
@click.option("--video/--no-video", default=True, show_default=True, help="Make a film of a scene.")
@click.option(
    "--fps",
    type=click.IntRange(1, 30),
    default=2,
    show_default=True,
    help="Key frames per second of the film; 2 is real time in nuScenes.",
)
@click.option(
    "--out",
    type=_FOLDER,
    metavar="DIR",
    help="Where everything goes. Default: <run>/figures/<scene or sample>, or outputs/infer/<scene or sample>.",
)
def infer_command(
    model: ModelChoice,
    data: DataChoice,
    sam2: MaskChoice,
    scene: str | None,
    sample: str | None,
    score_threshold: float,
    masks: bool | None,
    truth: bool,
    video: bool,
    fps: int,
    out: Path | None,
) -> None:
    """Detections and pictures of a scene or of one sample.

    Writes the results file (nuScenes format, global frame), for each sample the six camera images with boxes and the
    view from above, and for a scene a film of both (MP4, plays in browsers). With --masks, also SAM 2's mask of every
    object in every camera: in the pictures, and as COCO run lengths in masks.json.

    \b
    bevnext-sam2 infer --run outputs/my-run --scene scene-0103
    bevnext-sam2 infer --run outputs/my-run --scene scene-0103 --sam2-weights sam2.1-hiera-tiny
    bevnext-sam2 infer --run outputs/my-run --sample ca9a282c9e77460f8360f564131a8af5 --no-truth

    Exit codes: 0 done, 2 bad option or recipe, 3 bad data, 1 anything else.
    """
    model.check()
    from evaluation.run_infer import Drawing, run_infer

    wanted = sam2.names_any if masks is None else masks
    weights = choose_mask_weights(sam2.sam2_weights, sam2.sam2_config) if wanted else None
    drawing = Drawing(min_score=score_threshold, with_truth=truth, video=video, frames_per_second=fps)
    run_infer(model, data, scene=scene, sample=sample, drawing=drawing, out=out, mask_weights=weights)


@click.command("demo")
@model_options
@data_options
@mask_options
@click.option("--scene", metavar="NAME", help="Scene to show, by name or token: all of its key frames.")
@click.option("--sample", metavar="TOKEN", help="One sample to show. Default: the first one that was not trained on.")
@click.option(
    "--images", type=_FOLDER, metavar="DIR", help="Show images in a folder instead of a data set: CAM_FRONT.jpg, ..."
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Their matrices (docs/sam2.md has the format). Default: calibration.json in the folder.",
)
@click.option(
    "--boxes",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --images: boxes in the ego frame instead of a detector's, as `demo` writes them to boxes.json.",
)
@_score_threshold("left out.")
@click.option(
    "--make-weights",
    is_flag=True,
    help="Where no weights of SAM 2 are: train small ones first (`sam2 train`; about 9 minutes on two cores).",
)
@click.option(
    "--out", type=_FOLDER, metavar="DIR", help="Where everything goes. Default: outputs/demo/<scene, sample or folder>."
)
def demo_command(
    model: ModelChoice,
    data: DataChoice,
    sam2: MaskChoice,
    scene: str | None,
    sample: str | None,
    images: Path | None,
    calibration: Path | None,
    boxes: Path | None,
    score_threshold: float,
    make_weights: bool,
    out: Path | None,
) -> None:
    """Boxes and masks of every object: six cameras, the view from above, and each object cut out.

    Works on a sample of a data set, on images in a folder, or, when nothing is named, on the synthetic set, which it
    makes if it is not there. Boxes are those of the detector that --run (or --config with --checkpoint) names, else the
    annotated ones. Each object has one colour and number in all pictures.

    \b
    bevnext-sam2 demo
    bevnext-sam2 demo --run outputs/my-run --data-root /data/nuscenes --scene scene-0103
    bevnext-sam2 demo --images rig/ --calibration rig.json --run outputs/my-run --sam2-weights sam2.1-hiera-tiny

    Exit codes: 0 done, 2 bad option, recipe or weights, 3 bad data, 1 anything else.
    """
    from evaluation.demo_source import DemoChoice
    from evaluation.run_demo import run_demo

    choice = DemoChoice(scene, sample, images, calibration, boxes)
    choice.check(model)
    if model.names_any:
        model.check()
    run_demo(choice, model, data, sam2, min_score=score_threshold, make_weights=make_weights, out=out)


@click.command("report")
@click.option(
    "--run", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Run directory, e.g. outputs/<run>."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The page to write. Default: <run>/report.html.",
)
def report_command(run: Path, out: Path | None) -> None:
    """One HTML page of a run: recipe, plan, curves, official metrics, pictures, environment.

    Everything is inside the page: it opens from disk, without a network, and can be sent as one file.

    \b
    bevnext-sam2 report --run outputs/my-run

    Exit codes: 0 done, 2 bad option or not a run directory, 1 anything else.
    """
    from evaluation.report import write_report

    click.echo(f"report: {write_report(run, out)}")
