"""`bench index` measures and writes what it says, on a few scenes."""

from __future__ import annotations

import json
import subprocess
import sys


def test_two_scenes(tmp_path):
    out = tmp_path / "index.json"
    command = ["bench", "index", "--scenes", "2", "--workers", "2", "--work-dir", str(tmp_path), "--out", str(out)]
    # a process of its own: the benchmark binds itself to two cores
    done = subprocess.run([sys.executable, "-m", "launcher", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "peak" in done.stdout
    result = json.loads(out.read_text())
    assert result["tables"]["samples"] == 82
    assert result["build"]["seconds"] > 0
    assert result["build"]["peak_mb"] > 10
    assert {worker["start"] for worker in result["workers"]} == {"fork", "spawn"}
    assert list(tmp_path.iterdir()) == [out]
