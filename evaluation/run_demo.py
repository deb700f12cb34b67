"""The work of `bevnext-sam2 demo`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from configs.mask_weights import NANO_WEIGHTS, MaskWeights, choose_mask_weights, find_mask_weights
from configs.replaced_file import replace_text
from configs.synthetic_set import SYNTHETIC_ROOT, SYNTHETIC_VERSION
from evaluation.demo_source import DemoChoice, DemoSamples, open_source, prepare_synthetic
from evaluation.evaluate import RESULTS_FILE
from evaluation.object_masks import MASKS_FILE, ObjectMask, mask_maker, segment, write_masks
from evaluation.options import DataChoice, MaskChoice, ModelChoice
from evaluation.pictures import draw_objects_of
from evaluation.processes import choose_device
from evaluation.results import write_results
from evaluation.session import progress_bar

BOXES_FILE: Final = "boxes.json"
DEFAULT_OUT: Final = Path("outputs/demo")


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo has made."""

    samples: DemoSamples
    masks: dict[str, list[ObjectMask]]
    """By sample token."""
    folder: Path


def run_demo(
    choice: DemoChoice,
    model: ModelChoice,
    data: DataChoice,
    sam2: MaskChoice,
    *,
    min_score: float,
    make_weights: bool,
    out: Path | None,
) -> Demo:
    """Boxes, masks, pictures; says where each of them comes from and goes to."""
    console = Console(highlight=False, soft_wrap=True)
    device = choose_device(model.device)
    weights = _mask_weights(sam2, make_weights, console)
    fusion = mask_maker(weights, device, precision=model.precision)
    samples = open_source(choice, model, data, min_score, device, console)
    console.print(weights.line())
    if weights.is_nano and (samples.folder is not None or (data.version or SYNTHETIC_VERSION) != SYNTHETIC_VERSION):
        console.print("note: nano has by default seen drawn images alone; for photographs use published weights")
    folder = out or DEFAULT_OUT / samples.name
    masks = {}
    with progress_bar(console, "segmenting and drawing") as on_progress:
        for number, (token, boxes) in enumerate(samples.boxes.items(), start=1):
            view = samples.view(token)
            masks[token] = segment(fusion, view, boxes)
            draw_objects_of(view, boxes, masks[token], folder, f"{number:03d}", samples.counted)
            on_progress(number, len(samples.boxes))
    _write(samples, masks, weights, folder, console)
    return Demo(samples, masks, folder)


def _mask_weights(sam2: MaskChoice, make: bool, console: Console) -> MaskWeights:
    """Those of the options, or that are here; trained first where that was asked for."""
    found = find_mask_weights(sam2.sam2_weights, sam2.sam2_config)
    if found is None and make:
        from integration.masks.commands import train

        console.print("no weights of SAM 2 are here: small ones are trained first, on the synthetic set")
        prepare_synthetic(DataChoice(SYNTHETIC_ROOT, SYNTHETIC_VERSION, None), console)
        train.main(["--data-root", str(SYNTHETIC_ROOT), "--out", str(NANO_WEIGHTS.parent)], standalone_mode=False)
    return found or choose_mask_weights(sam2.sam2_weights, sam2.sam2_config)


def _write(
    samples: DemoSamples, masks: dict[str, list[ObjectMask]], weights: MaskWeights, folder: Path, console: Console
) -> None:
    records = samples.records()
    if records is None:
        boxes_file = write_results(folder / RESULTS_FILE, samples.boxes)
    else:
        boxes_file = replace_text(folder / BOXES_FILE, json.dumps(records, indent=1, allow_nan=False) + "\n")
    masks_file = write_masks(folder / MASKS_FILE, masks, weights, boxes_file.name)
    count, views = sum(map(len, samples.boxes.values())), sum(map(len, masks.values()))
    console.print(f"boxes:    {count} in {boxes_file}")
    console.print(f"masks:    {views} (an object may have one in each of two cameras) in {masks_file}")
    console.print(f"pictures: {folder}/*_cameras.jpg, *_bev.png and .pdf, *_objects.jpg, objects/*.png")
