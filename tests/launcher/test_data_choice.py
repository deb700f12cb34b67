"""What a run reads, and what must be made first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.class_balance import resampled_counts
from configs.errors import DataError, UsageError
from configs.nuscenes import TABLES
from configs.schema import DataConfig
from launcher.dataset import choose_data, epoch_samples, preparations


def commands(data) -> list[str]:
    return [" ".join(step.arguments) for step in preparations(data)]


def test_without_a_root_the_synthetic_set_is_made_and_indexed(in_empty_folder: Path) -> None:
    data = choose_data(None, None, None, "v1.0-trainval")
    assert (data.version, data.is_synthetic) == ("v1.0-synthetic", True)
    root = in_empty_folder / "data/synthetic"
    assert commands(data) == [
        f"data synth --out {root} --scenes 80 --samples 4 --reach 20 --image-size 704x396 --no-lidar-sweeps",
        f"data index --data-root {root} --version v1.0-synthetic",
    ]


def test_a_set_of_the_user_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        preparations(choose_data(tmp_path / "nuscenes", None, None, "v1.0-mini"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no v1\.0-mini"):
        preparations(choose_data(tmp_path / "empty", None, None, "v1.0-mini"))


def test_an_indexed_set_needs_nothing(root: Path) -> None:
    assert preparations(choose_data(root, None, None, "v1.0-synthetic")) == []


def test_an_index_elsewhere(make_root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_root()
    (root / "index").rename(tmp_path / "indexes")
    assert preparations(choose_data(root, None, tmp_path / "indexes", "v1.0-synthetic")) == []
    monkeypatch.setenv("BEVNEXT_SAM2_INDEX_DIR", str(tmp_path / "indexes"))
    assert preparations(choose_data(root, None, None, "v1.0-synthetic")) == []


@pytest.mark.parametrize("damage", ["{", "[]", '{"fingerprint": {}}', '{"fingerprint": 3, "splits": {}}'])
def test_a_damaged_index_is_made_again(damage: str, root: Path) -> None:
    data = choose_data(root, None, None, "v1.0-synthetic")
    data.header.write_text(damage)
    for table in TABLES:
        (root / f"v1.0-synthetic/{table}.json").write_text("[]")
    assert commands(data) == [f"data index --data-root {root} --version v1.0-synthetic"]


def test_an_index_of_older_tables_is_made_again(root: Path) -> None:
    data = choose_data(root, None, None, "v1.0-synthetic")
    for table in TABLES:
        (root / f"v1.0-synthetic/{table}.json").write_text("[]")
    stat = (root / "v1.0-synthetic/sample.json").stat()
    header = json.loads(data.header.read_text())
    header["fingerprint"] = {"sample.json": {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}}
    data.header.write_text(json.dumps(header))
    assert preparations(data) == []
    (root / "v1.0-synthetic/sample.json").write_text("[ ]")
    assert "sample.json has changed" in preparations(data)[0].reason


def test_length_of_an_epoch(root: Path) -> None:
    data = choose_data(root, None, None, "v1.0-synthetic")
    plain = DataConfig(train_split="synthetic_train", class_balanced=False)
    assert epoch_samples(data, plain) == 24
    balanced = plain.model_copy(update={"class_balanced": True})
    assert epoch_samples(data, balanced) == sum(resampled_counts([24] * 5 + [0] * 5))
    with pytest.raises(UsageError, match="synthetic_train, synthetic_val"):
        epoch_samples(data, DataConfig(train_split="train"))
