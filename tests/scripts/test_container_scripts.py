"""The shell commands around containers: what they would run, what they refuse, and what they change when asked to."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.main import command_line
from launcher.own_process import ROOT

SCRIPTS = (
    "build.sh",
    "launch_docker_multi_gpu.sh",
    "train_ddp_docker.sh",
    "setup_gpu.sh",
    "docker-with-data.sh",
    "build-and-train.sh",
)
RECORDER = """#!/usr/bin/env python3
import json, os, pathlib, sys
here = pathlib.Path({folder!r})
name = pathlib.Path(sys.argv[0]).name
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
answer = here / f"{{name}}.answer"
print(answer.read_text() if answer.exists() else "", end="")
codes = here / f"{{name}}.codes"
code = json.loads(codes.read_text()).get(sys.argv[2] if len(sys.argv) > 2 else "", 0) if codes.exists() else 0
sys.exit(code)
"""
Call = Callable[..., subprocess.CompletedProcess[str]]


class Checkout:
    """The scripts beside a `run.sh` that only tells its arguments, and programs that do the same on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.folder = folder / "programs"
        (self.root / "scripts").mkdir(parents=True)
        self.folder.mkdir()
        for name in SCRIPTS:
            shutil.copy(ROOT / "scripts" / name, self.root / "scripts")
        for path in (self.root / "scripts/run.sh", self.root / "scripts/check-dataset.sh"):
            self.pretend(path)

    def pretend(self, path: Path) -> None:
        path.write_text(RECORDER.format(folder=str(self.folder)))
        path.chmod(0o755)

    def program(self, name: str, answer: str = "") -> None:
        self.pretend(self.folder / name)
        (self.folder / f"{name}.answer").write_text(answer)

    def codes(self, name: str, codes: dict[str, int]) -> None:
        """Exit codes by the first word behind the first option."""
        (self.folder / f"{name}.codes").write_text(json.dumps(codes))

    def __call__(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        name, *arguments = shlex.split(line)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("BEVNEXT_SAM2_")}
        return subprocess.run(
            [self.root / "scripts" / name, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.folder,
            env={**clean, "PATH": f"{self.folder}:/usr/bin:/bin", **environment},
        )

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def options_of(command: str, arguments: list[str]) -> dict[str, object]:
    """As the real command reads them."""
    found = command_line.get_command(None, command)  # type: ignore[arg-type]
    assert found is not None
    return found.make_context(command, list(arguments)).params


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str, checkout: Checkout) -> None:
    done = checkout(f"{name} --help")
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout
    assert checkout.calls() == []


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "scripts").glob("*.sh")))
def test_shellcheck_is_content(name: str) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, ROOT / "scripts" / name], check=True, timeout=120)


# --- training in containers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["launch_docker_multi_gpu.sh", "train_ddp_docker.sh"])
def test_every_documented_option_reaches_the_launcher(name: str, checkout: Checkout) -> None:
    line = (
        "--gpus 0,1 --batch-size 2 --epochs 5 --data-root '/my data' --output-dir o --config bevnext/bevnext-stage1 "
        "--resume auto --gradient-accumulation 4 --lr-scaling sqrt --mixed-precision --basic-training "
        "--distributed ddp --docker-image i --container-name first --detach --port 29501 --dry-run"
    )
    assert checkout(f"{name} {line}", BEVNEXT_SAM2_DEVICE="gpu").returncode == 0
    ((_, place, mode, *arguments),) = checkout.calls()
    assert (place, mode) == ("--docker", "train")
    options = options_of("train", arguments)
    assert (options["gpus"], options["batch_size"], options["data_root"]) == ((0, 1), 2, Path("/my data"))
    assert (options["image"], options["container_name"], options["detach"]) == ("i", "first", True)
    assert (options["mixed_precision"], options["basic_training"], options["master_port"]) == (True, True, 29501)


def test_without_a_gpu_the_same_line_trains_on_the_cpu_and_says_so(checkout: Checkout) -> None:
    checkout.program("docker")
    first = checkout("launch_docker_multi_gpu.sh --num-gpus 2")
    assert "wrote BEVNEXT_SAM2_DEVICE=cpu to .env (nvidia-smi sees no GPU)" in first.stderr
    assert "training on the CPU" in first.stderr
    assert checkout.calls()[-1] == ["run.sh", "--docker", "train", "--no-gpu", "--num-processes", "2"]
    second = checkout("launch_docker_multi_gpu.sh --num-gpus=2")
    assert "wrote" not in second.stderr
    assert "training on the CPU" in second.stderr
    assert checkout.calls()[-1][-1] == "--num-processes=2"
    (checkout.root / ".env").write_text('BEVNEXT_SAM2_DEVICE="cpu"\n')  # as Compose may have it, too
    assert "training on the CPU" in checkout("launch_docker_multi_gpu.sh --num-gpus 2").stderr


def test_a_dry_line_is_the_line_that_would_run_and_writes_nothing(checkout: Checkout) -> None:
    checkout.program("docker")
    done = checkout("launch_docker_multi_gpu.sh --num-gpus 2 --dry-run")
    assert (done.returncode, "training on the CPU" in done.stderr) == (0, True), done.stderr
    assert checkout.calls()[-1] == ["run.sh", "--docker", "train", "--no-gpu", "--num-processes", "2", "--dry-run"]
    assert not (checkout.root / ".env").exists()


def test_without_gpus_by_wish_nothing_is_looked_for_or_written(checkout: Checkout) -> None:
    done = checkout("launch_docker_multi_gpu.sh --no-gpu --num-processes 2")
    assert (done.returncode, done.stderr) == (0, "")
    assert checkout.calls() == [["run.sh", "--docker", "train", "--no-gpu", "--num-processes", "2"]]
    assert not (checkout.root / ".env").exists()


def test_with_gpus_nothing_is_translated(checkout: Checkout) -> None:
    checkout.program("nvidia-smi", "GPU 0: H200\nGPU 1: H200\n")
    checkout.program("docker", '{"nvidia":{},"runc":{}}')
    done = checkout("launch_docker_multi_gpu.sh --num-gpus 2")
    assert "BEVNEXT_SAM2_DEVICE=gpu" in done.stderr
    assert checkout.calls()[-1] == ["run.sh", "--docker", "train", "--num-gpus", "2"]


# --- setup_gpu.sh ----------------------------------------------------------------------------------------------------


def test_setup_only_looks(checkout: Checkout) -> None:
    checkout.program("nvidia-smi", "GPU 0: H200\n")
    checkout.program("docker", '{"runc":{}}')
    checkout.program("sudo")
    done = checkout("setup_gpu.sh")
    assert done.returncode == 1
    assert "no NVIDIA toolkit" in done.stdout
    assert not (checkout.root / ".env").exists()
    assert not any(call[0] == "sudo" for call in checkout.calls())


def test_setup_writes_its_own_lines_of_env_and_keeps_the_others(checkout: Checkout) -> None:
    (checkout.root / ".env").write_text("MINE=1\nBEVNEXT_SAM2_DEVICE=gpu\n")
    assert "would write" in checkout("setup_gpu.sh --write-env --dry-run").stdout
    assert "DEVICE=gpu" in (checkout.root / ".env").read_text()
    assert checkout("setup_gpu.sh --write-env").returncode == 0
    lines = (checkout.root / ".env").read_text().splitlines()
    user = os.getuid() or 1000
    assert lines[:3] == ["MINE=1", "BEVNEXT_SAM2_DEVICE=cpu", f"BEVNEXT_SAM2_UID={user}"]


def test_who_may_read_env_stays_as_it_was(checkout: Checkout) -> None:
    env = checkout.root / ".env"
    env.write_text("BEVNEXT_SAM2_GRAFANA_PASSWORD=x\n")
    for mode in (0o600, 0o664):
        env.chmod(mode)
        assert checkout("setup_gpu.sh --write-env").returncode == 0
        assert env.stat().st_mode & 0o777 == mode


def test_setup_shows_the_commands_of_an_installation_and_never_ends_containers(checkout: Checkout) -> None:
    checkout.program("docker", "1234\n")
    checkout.program("sudo")
    shown = checkout("setup_gpu.sh --install --dry-run")
    assert "apt-get install --yes nvidia-container-toolkit" in shown.stdout
    done = checkout("setup_gpu.sh --install")
    assert (done.returncode, "containers are running" in done.stderr) == (1, True)
    assert not any(call[0] == "sudo" for call in checkout.calls())
    assert checkout("setup_gpu.sh --fly").returncode == 2


# --- build.sh --------------------------------------------------------------------------------------------------------


def test_build_shows_its_command(checkout: Checkout) -> None:
    done = checkout("build.sh --target dev --cpu --base-image local/base:bookworm --no-cache --dry-run")
    words = shlex.split(done.stdout)
    assert words[:6] == ["docker", "build", "--file", "docker/Dockerfile", "--target", "dev"]
    assert {"TORCH=cpu", "BASE_IMAGE=local/base:bookworm", "--no-cache", "bevnext-sam2-dev:0.1.0"} <= set(words)
    assert f"UID={os.getuid() or 1000}" in words
    assert checkout("build.sh --target x").returncode == 2
    assert checkout("build.sh --tag").returncode == 2


def test_build_takes_what_env_says(checkout: Checkout) -> None:
    words = shlex.split(checkout("build.sh --dry-run").stdout)
    assert "TORCH=default" in words
    assert not any(word.startswith("BASE_IMAGE=") for word in words)
    (checkout.root / ".env").write_text("BEVNEXT_SAM2_TORCH=cpu\nBEVNEXT_SAM2_BASE_IMAGE='debian:bookworm-slim'\n")
    words = shlex.split(checkout("build.sh --dry-run").stdout)
    assert {"TORCH=cpu", "BASE_IMAGE=debian:bookworm-slim"} <= set(words)
    assert "TORCH=default" in shlex.split(checkout("build.sh --gpu --dry-run").stdout)
    named = checkout("build.sh --torch cu126 --dry-run", BEVNEXT_SAM2_BASE_IMAGE="ubuntu:24.04")
    assert {"TORCH=cu126", "BASE_IMAGE=ubuntu:24.04"} <= set(shlex.split(named.stdout))


# --- docker-with-data.sh ---------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "my data"
    (folder / "v1.0-mini").mkdir(parents=True)
    return folder


def test_strategy_volume(checkout: Checkout, data: Path) -> None:
    checkout.program("docker")
    line = f"docker-with-data.sh volume --data-path '{data}' --container mine --no-gpu"
    assert checkout(f"{line} -- eval --run outputs/r").returncode == 0
    (call,) = checkout.calls()
    assert call[:4] == ["docker", "compose", "--project-directory", str(checkout.root)]
    assert call[call.index("bevnext-sam2") + 1 :] == ["eval", "--run", "outputs/r", "--data-root", "/data"]
    assert call[call.index("--name") + 1] == "mine"
    checkout(f"{line} -- train --epochs 2")
    assert checkout.calls()[-1] == [
        *("run.sh", "--docker", "train", "--data-root", str(data), "--container-name", "mine", "--no-gpu"),
        *("--epochs", "2"),
    ]
    checkout(f"docker-with-data.sh volume --data-path '{data}'")
    assert checkout.calls()[-1][-1] == "shell"
    checkout(f"docker-with-data.sh volume --data-path '{data}' --jupyter --port 9999")
    assert checkout.calls()[-1][-1] == "dev"


@pytest.mark.parametrize("where", ["", "--native"])
def test_a_command_of_two_words_gets_the_data_set_behind_them(where: str, checkout: Checkout, data: Path) -> None:
    done = checkout(f"docker-with-data.sh volume --data-path '{data}' {where} --dry-run -- data check --deep")
    words = shlex.split(done.stdout)
    assert words[-5:] == ["data", "check", "--deep", "--data-root", str(data) if where else "/data"]


@pytest.mark.parametrize("option", ["--gpu", "--no-gpu"])
def test_who_insists_on_a_device_is_heard_by_train(option: str, checkout: Checkout, data: Path) -> None:
    for where in ("", "--native"):
        done = checkout(f"docker-with-data.sh volume --data-path '{data}' {where} {option} --dry-run -- train")
        words = shlex.split(done.stdout)
        assert option in words
        assert options_of("train", words[words.index("train") + 1 :])


def test_without_a_gpu_a_command_is_not_told_what_it_does_not_know(checkout: Checkout, data: Path) -> None:
    for command, known in (("eval", False), ("train", True)):
        done = checkout(f"docker-with-data.sh volume --data-path '{data}' --no-gpu --dry-run -- {command}")
        assert (done.returncode, "--no-gpu" in done.stdout) == (0, known), done.stderr


def test_strategy_symlink_mounts_what_the_links_point_to(checkout: Checkout, data: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (data / "samples").symlink_to(disk)
    done = checkout(f"docker-with-data.sh symlink --data-path '{data}' --dry-run -- data check")
    words = shlex.split(done.stdout)
    assert words[words.index("--volume") + 1] == f"{disk}:{disk}:ro"


def test_a_link_that_leads_nowhere_is_an_error(checkout: Checkout, data: Path) -> None:
    (data / "sweeps").symlink_to("/no/such/disk")
    done = checkout(f"docker-with-data.sh symlink --data-path '{data}' --dry-run -- data check")
    assert (done.returncode, "sweeps leads nowhere" in done.stderr) == (2, True)


def test_strategy_shared_fills_a_volume_once(checkout: Checkout, data: Path) -> None:
    checkout.program("docker")
    assert checkout(f"docker-with-data.sh shared --data-path '{data}' -- eval").returncode == 0
    fill, start = checkout.calls()
    assert f"{data}:/from:ro" in fill
    assert "bevnext-sam2-data:/to" in fill
    assert "bevnext-sam2-data:/shared:ro" in start
    assert start[-2:] == ["--data-root", "/shared"]


def test_strategy_s3(checkout: Checkout) -> None:
    checkout.program("docker")
    assert checkout("docker-with-data.sh s3 --data-path s3://bucket/set -- eval").returncode == 0
    (call,) = checkout.calls()
    assert "AWS_SECRET_ACCESS_KEY" in call
    assert call[-2:] == ["--data-root", "s3://bucket/set"]
    assert checkout("docker-with-data.sh s3 --data-path /data -- eval").returncode == 2


def test_strategy_download_fetches_before_the_command(checkout: Checkout, tmp_path: Path) -> None:
    folder, link = tmp_path / "new data", "https://some.org/some.tgz?Signature=a&b=c#md5=" + "0" * 32
    line = f"docker-with-data.sh download --data-path '{folder}' --url '{link}' --accept-licence --native"
    assert checkout(f"{line} -- train --epochs 1").returncode == 0
    fetch, train = checkout.calls()
    assert fetch == ["run.sh", "data", "fetch", link, "--data-root", str(folder), "--accept-licence"]
    assert train == ["run.sh", "train", "--epochs", "1", "--data-root", str(folder)]
    checkout(f"docker-with-data.sh download --data-path '{folder}' --list 'my links' --accept-licence --dry-run")
    checkout.codes("run.sh", {"fetch": 3})
    assert checkout(f"{line} -- train").returncode == 3
    assert len(checkout.calls()) == 3


def test_a_licence_is_accepted_by_a_person(checkout: Checkout) -> None:
    done = checkout("docker-with-data.sh download --data-path d")
    assert (done.returncode, "terms-of-use" in done.stderr) == (2, True)


@pytest.mark.parametrize("line", ["", "fly", "volume", "volume --data-path /nowhere", "volume --data-path"])
def test_data_that_is_not_there(line: str, checkout: Checkout) -> None:
    done = checkout(f"docker-with-data.sh {line}")
    assert (done.returncode, "fix:" in done.stderr) == (2, True)


@pytest.mark.parametrize("line", ["--native --container mine -- train", "--native --jupyter", "--port 9999 -- train"])
def test_options_that_would_do_nothing(line: str, checkout: Checkout) -> None:
    done = checkout(f"docker-with-data.sh volume --data-path . {line}")
    assert (done.returncode, "fix:" in done.stderr) == (2, True)
    assert not checkout.calls()


# --- build-and-train.sh ----------------------------------------------------------------------------------------------


def stages(checkout: Checkout) -> list[str]:
    return [call[2] if call[0] == "run.sh" else call[0] for call in checkout.calls()]


def test_stages_run_in_order_and_only_once(checkout: Checkout, data: Path) -> None:
    line = f"build-and-train.sh --native --data-path '{data}' --epochs 2 --no-gpu"
    assert checkout(line).returncode == 0
    assert stages(checkout) == ["check-dataset.sh", "train", "eval", "report"]
    train = checkout.calls()[1]
    assert train[train.index("--resume") + 1] == "auto"
    assert options_of("train", train[3:])["data_root"] == data
    again = checkout(line)
    assert stages(checkout) == ["check-dataset.sh", "train", "eval", "report"]
    assert again.stdout.count("done before") == 4
    checkout(f"{line} --fresh --skip-eval")
    assert stages(checkout)[4:] == ["check-dataset.sh", "train"]


def test_a_stage_that_fails_ends_it_with_its_code_and_is_repeated(checkout: Checkout) -> None:
    checkout.codes("run.sh", {"train": 75})
    assert checkout("build-and-train.sh --native").returncode == 75
    assert stages(checkout) == ["train"]
    checkout.codes("run.sh", {})
    assert checkout("build-and-train.sh --native").returncode == 0
    assert stages(checkout) == ["train", "train", "eval", "report"]


def test_data_that_are_not_there_are_missed_before_the_image_is_built(checkout: Checkout) -> None:
    done = checkout("build-and-train.sh --data-path /no/such/folder")
    assert (done.returncode, "/no/such/folder: no such folder" in done.stderr, checkout.calls()) == (2, True, [])


def test_dry_run_of_all_stages_runs_none(checkout: Checkout, data: Path) -> None:
    done = checkout(f"build-and-train.sh --data-path '{data}' --config bevnext/bevnext-stage1 --batch-size 2 --dry-run")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        *("== build", "== validation", "== training", "== eval", "== report")
    ]
    assert checkout.calls() == []
    assert checkout("build-and-train.sh --epochs").returncode == 2
