"""`--precision`: SAM 2 computes in fewer bits and answers in float32; what a device cannot do is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from configs.errors import UsageError
from integration.composition import share_pixels, tight_boxes
from integration.precision import lower_kind
from integration.sam2_package import NANO
from integration.sam2_weights import load_segmenter
from integration.segmenter import Prompts, upsample
from launcher.main import run

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")


def test_sam_2_computes_in_bf16_and_answers_in_float32() -> None:
    torch.manual_seed(0)
    segmenter = load_segmenter(NANO, None, network_size=(64, 96))
    images = torch.randint(0, 256, (2, 3, 80, 120), dtype=torch.uint8)
    prompts = Prompts.of_boxes(torch.tensor([0, 1]), torch.tensor([[10.0, 10, 60, 50], [30, 20, 90, 70]]))
    with torch.inference_mode():
        exact = segmenter.decode(segmenter.encode(images), prompts)
        segmenter.lower_kind = lower_kind("bf16", segmenter.device)
        features = segmenter.encode(images)
        found = segmenter.decode(features, prompts)
    assert features.fine.dtype == torch.bfloat16
    assert {one.dtype for one in (found.logits, found.iou, found.presence, found.token)} == {torch.float32}
    spread = float(exact.logits.std())
    assert 0 < float((found.logits - exact.logits).abs().mean()) < 0.1 * spread


def test_what_a_device_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert (lower_kind("fp32", gpu), lower_kind("fp16", gpu)) == (None, torch.float16)
    assert (lower_kind("fp32", cpu), lower_kind("bf16", cpu)) == (None, torch.bfloat16)
    with pytest.raises(UsageError, match="Tesla V100 has no bf16") as caught:
        lower_kind("bf16", gpu)
    assert "fp16" in caught.value.fix
    with pytest.raises(UsageError, match="--precision fp16"):
        lower_kind("fp16", cpu)


def test_label_refuses_it_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "labels"
    assert run(["sam2", "label", "--weights", "no", "--device", "cpu", "--precision", "fp16", "--out", str(out)]) == 2
    assert "--precision bf16 or fp32" in capsys.readouterr().err
    assert not out.exists()


def test_masks_are_composed_where_their_logits_are() -> None:
    """No such device is needed: fake tensors know where they are, and refuse to be mixed with others."""
    with FakeTensorMode():
        logits = torch.empty(3, 8, 16, device="cuda")
        shared = share_pixels(
            upsample(logits[:, None], (32, 64))[:, 0], torch.empty(3, dtype=torch.int64, device="cuda")
        )
        assert (shared.owner.device.type, shared.logits.device.type) == ("cuda", "cuda")
        assert tight_boxes(shared.logits > 0).device.type == "cuda"
