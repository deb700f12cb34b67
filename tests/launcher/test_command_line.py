"""The command line: what it accepts, what it refuses and with which exit code, and how light it is."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from configs.errors import DataError
from configs.nuscenes import TABLES
from launcher import main as launcher_main
from launcher.main import COMMANDS, command_line, run
from launcher.options import TrainRequest, train_options
from launcher.own_process import ROOT, own_environment

HEAVY = ("torch", "torchvision", "numpy", "pyarrow", "cv2", "nuscenes", "matplotlib")


def imported_by(*arguments: str) -> set[str]:
    """Top-level modules in memory after a command."""
    program = (
        "import sys; from launcher.main import run; code = run(sys.argv[1:]);"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=240, check=True
    )
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    return set(modules)


@pytest.mark.parametrize(
    "line", ["--help", "plan --help", "train --help", "doctor --help", "quickstart --help", "bench --help", "plan"]
)
def test_light_commands_import_nothing_heavy(line: str) -> None:
    assert not imported_by(*line.split()).intersection(HEAVY)


@pytest.mark.parametrize("name", ["plan", "train", "doctor", "quickstart"])
def test_own_commands_resolve_and_carry_the_help_of_the_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"bevnext-sam2 {name}" in capsys.readouterr().out


def test_every_command_of_the_table_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text and short_help in text for name, (_, short_help) in COMMANDS.items())


# --- options ---------------------------------------------------------------------------------------------------------


def parsed(line: str) -> TrainRequest:
    received: list[TrainRequest] = []

    @click.command()
    @train_options
    def catch(request: TrainRequest) -> None:
        received.append(request)

    catch.main(shlex.split(line), standalone_mode=False)
    return received[0]


def test_every_option_reaches_the_request() -> None:
    request = parsed(
        "--config bevnext/bevnext-stage1 --set engine.seed=1 --set 'data.train_split=a b' --data-root /d --version v "
        "--index-dir /i --device cuda --num-gpus 2 --gpus 0,3 --num-processes 4 --distributed ddp --batch-size 5 "
        "--gradient-accumulation 6 --effective-batch 7 --lr-scaling sqrt --epochs 8 --mixed-precision "
        "--precision bf16 --workers 0 --output-dir /o --run r --resume auto --grace-seconds 9 --nnodes 2 --node-rank 1 "
        "--rdzv-endpoint host:1 --master-port 10 --profile 10:13 --basic-training --dry-run --json"
    )
    assert request == TrainRequest(
        config="bevnext/bevnext-stage1",
        overrides=("engine.seed=1", "data.train_split=a b"),
        data_root=Path("/d"),
        version="v",
        index_dir=Path("/i"),
        device="cuda",
        num_gpus=2,
        gpus=(0, 3),
        num_processes=4,
        distributed="ddp",
        batch_size=5,
        gradient_accumulation=6,
        effective_batch=7,
        lr_scaling="sqrt",
        epochs=8,
        mixed_precision=True,
        precision="bf16",
        workers=0,
        output_dir=Path("/o"),
        run="r",
        resume="auto",
        grace_seconds=9,
        nnodes=(2, 2),
        node_rank=1,
        rdzv_endpoint="host:1",
        master_port=10,
        profile=(10, 13),
        basic_training=True,
        dry_run=True,
        as_json=True,
    )


def test_without_options_the_request_is_the_default_one() -> None:
    assert parsed("") == TrainRequest()


def test_old_names_and_forms() -> None:
    assert parsed("--data-path /d").data_root == Path("/d")
    assert parsed("--no-mixed-precision").mixed_precision is False
    assert parsed("--gpu").device == "cuda"
    assert parsed("--no-gpu").device == "cpu"
    assert parsed("--port 4000").master_port == 4000
    assert parsed("--distributed --epochs 3").distributed == "auto"
    assert parsed("--batch-size auto").batch_size == "auto"
    assert parsed("--nnodes 1:4").nnodes == (1, 4)


@pytest.mark.parametrize(
    "line",
    [
        "--batch-size 0",
        "--batch-size big",
        "--nnodes 0",
        "--nnodes 3:2",
        "--nnodes 1:",
        "--distributed horovod",
        "--gpus 0,x",
        "--gpus=-1,",
        "--lr-scaling cubic",
        "--device tpu",
        "--run a/b",
        "--run ..",
        "--rdzv-endpoint host",
        "--master-port 70000",
        "--no-such-option",
        "stray",
    ],
)
def test_malformed_options_are_bad_usage(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", *shlex.split(line), "--dry-run"]) == 2
    assert "Usage: bevnext-sam2 train" in capsys.readouterr().err


# --- bad input -------------------------------------------------------------------------------------------------------


def refused(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(shlex.split(line))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.err


@pytest.mark.parametrize("command", ["plan", "train"])
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("--set optimizer.learning_rat=1", 2, "learning_rate"),
        ("--config bevnext/bevnext-stage7", 2, "bevnext/bevnext-stage1"),
        ("--gpus 0", 2, "--gpus 0: no NVIDIA driver"),
        ("--num-gpus 2", 2, "--num-gpus 2: no NVIDIA driver"),
        ("--device cuda", 2, "--device cpu trains without"),
        ("--device cpu --num-gpus 1", 2, "exclude each other"),
        ("--num-gpus 1 --num-processes 1", 2, "exclude each other"),
        ("--device cuda --num-processes 1", 2, "exclude each other"),
        ("--gradient-accumulation 3 --set optimizer.reference_batch=8", 2, "cannot be split"),
        ("--num-processes 3 --set optimizer.reference_batch=8", 2, "fix: 2 device(s)"),
        ("--precision bf16 --no-mixed-precision", 2, "leave one out"),
        ("--data-root nowhere", 3, "no such folder"),
        ("--version v1.0-mini", 2, "--data-root"),
        ("--nnodes 2", 2, "--rdzv-endpoint"),
        ("--node-rank 1", 2, "--nnodes"),
        ("--nnodes 2 --node-rank 2 --rdzv-endpoint h:1", 2, "from 0 to 1"),
        ("--nnodes 2 --master-port 1 --rdzv-endpoint h:1", 2, "one machine"),
        ("--nnodes 1:2", 2, "--rdzv-endpoint"),
        ("--nnodes 1:2 --node-rank 0 --rdzv-endpoint h:1", 2, "come and go"),
        ("--num-processes 1 --nnodes 1:3 --rdzv-endpoint h:1 --effective-batch 8", 2, "--effective-batch 6 or 12"),
        ("--batch-size auto --no-gpu", 2, "out of memory"),
        ("--gpu", 2, "--device cpu trains without"),
        ("--slurm partition=gpu", 2, "--slurm means nothing with --backend local"),
        ("--backend slurm --num-gpus 1 --image x", 2, "--backend docker or kubernetes, or leave it out"),
    ],
)
def test_one_clear_message_and_the_right_exit_code(
    command: str, options: str, code: int, words: str, capsys: pytest.CaptureFixture[str], in_empty_folder: Path
) -> None:
    found, text = refused(f"{command} {options}", capsys)
    assert (found, words in text) == (code, True), text
    assert "fix:" in text
    assert not list(in_empty_folder.iterdir())  # nothing half-written


def test_a_data_set_of_another_version(make_root, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_root("v1.0-mini")
    code, text = refused(f"plan --config bevnext/bevnext-stage1 --data-root {root}", capsys)
    assert code == 3
    assert "no v1.0-trainval, but v1.0-mini" in text
    assert "--version v1.0-mini" in text


def test_a_half_downloaded_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = tmp_path / "v1.0-mini"
    version.mkdir()
    for table in TABLES[1:]:
        (version / f"{table}.json").write_text("[]")
    code, text = refused(f"plan --data-root {tmp_path} --version v1.0-mini", capsys)
    assert (code, f"lacks {TABLES[0]}.json" in text) == (3, True)


def test_an_unknown_split_names_the_known_ones(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = refused(f"plan --data-root {root} --set data.train_split=nights", capsys)
    assert (code, "synthetic_train, synthetic_val" in text) == (2, True)


def test_plan_without_the_index_names_the_command_that_makes_it(make_root, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_root("v1.0-mini", splits={"mini_train": 323})
    (root / "index/v1.0-mini/header.json").unlink()
    for table in TABLES:
        (root / f"v1.0-mini/{table}.json").write_text("[]")
    code, text = refused(f"plan --data-root {root} --version v1.0-mini", capsys)
    assert code == 3
    assert f"bevnext-sam2 data index --data-root {root} --version v1.0-mini" in text


def test_a_taken_port(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, text = refused(f"train --data-root {root} --master-port {port}", capsys)
    assert (code, f"--master-port {port}" in text) == (2, True)


# --- errors in general -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (DataError("it is cut", fix="get it again"), 3, "error: it is cut\n  fix: get it again"),
        (OSError(errno.ENOSPC, "No space left on device", "/out/x"), 1, "error: /out/x: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), 1, "error: /out: Permission denied\n  fix: write"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("surprise"), 1, "Traceback"),
        (FileNotFoundError(errno.ENOENT, "gone", "f"), 1, "Traceback"),
    ],
)
def test_errors_of_any_command(
    error: BaseException,
    code: int,
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(launcher_main.command_line, "get_command", lambda *_: broken)
    assert run(["broken"]) == code
    assert shown in capsys.readouterr().err


def test_a_returned_number_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "get_command", lambda *_: click.Command("seven", callback=lambda: 75))
    assert run(["seven"]) == 75


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    line = f"{shlex.quote(sys.executable)} -m launcher plan --json | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


@pytest.mark.parametrize(("command", "place"), [("train", "training_run.train_run"), ("quickstart", "quickstart._run")])
def test_a_training_outlives_its_reader(command: str, place: str, in_empty_folder: Path) -> None:
    module, name = place.split(".")
    program = (
        f"import sys, launcher.{module} as module; from launcher.main import main;"
        f"module.{name} = lambda *_: 75 if print('spoken' * 10_000, flush=True) is None else 1; main([{command!r}])"
    )
    there, here = os.pipe()
    os.close(there)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=own_environment(),
        stdout=here,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(here)
    assert done.returncode == 75, done.stderr
    without = [
        sys.executable,
        "-c",
        f"import os, sys; os.close(1); os.execv(sys.executable, {[sys.executable, '-c', program]})",
    ]
    done = subprocess.run(without, env=own_environment(), stderr=subprocess.PIPE, text=True, timeout=240, check=False)
    assert done.returncode == 75, done.stderr


def test_json_is_all_that_plan_prints(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--json", "--data-root", str(root), "--num-processes", "2", "--device", "cpu"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["plan"]["epoch_samples"] == 24
    assert content["plan"]["effective_batch"] == content["plan"]["devices"] * content["plan"]["device_batch"]
    assert content["first"] == []


# --- the manual ------------------------------------------------------------------------------------------------------

MANUAL = "".join((ROOT / "docs" / name).read_text().replace("\\\n", "") for name in ("cli.md", "clusters.md"))


def test_the_manual_names_every_command() -> None:
    assert all(f"`{name}" in MANUAL for name in COMMANDS)


def test_completion_is_answered_without_heavy_imports() -> None:
    words = {"_BEVNEXT_SAM2_COMPLETE": "bash_complete", "COMP_WORDS": "bevnext-sam2 pl", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "launcher"],
        env={**os.environ, **words},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stdout.strip() == "plain,plan"
    assert not [line for line in done.stderr.splitlines() if line.rpartition("|")[2].strip() in HEAVY]
