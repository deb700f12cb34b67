"""`train --docker`: what the container is given, how the engine is called, what comes back. The engine is played."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import ExitCode
from launcher.backends import docker, docker_run
from launcher.backends.docker import Container, make_container, override_text
from launcher.main import command_line, run
from launcher.options import TrainRequest
from launcher.own_process import ROOT
from launcher.planning import decide, plan_run
from monitoring.devices import Gpu, GpuSurvey

NO_GPU = GpuSurvey(problem="none", driver_missing=True)
GPUS = GpuSurvey(tuple(Gpu(i, "H200", f"GPU-{i}", 141 << 30, (9, 0)) for i in range(4)), driver="580.95")
USER = (1234, 1235)


class _Loader(yaml.SafeLoader):
    """Reads Compose's tags as what they hold."""


_Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node, deep=True))
_Loader.add_constructor("!reset", lambda loader, node: None)


def container(survey: GpuSurvey = NO_GPU, **options: Any) -> Container:
    request = TrainRequest(backend="docker", **options)
    planned = plan_run(decide(request, survey))
    gpus = [survey.gpus[i].uuid for i in planned.plan.device_ids] if survey.gpus else []
    return make_container(request, planned, gpus, USER)


def service(made: Container) -> dict[str, Any]:
    return dict(yaml.load(override_text(made), _Loader)["services"]["train"])


def mounted(made: Container) -> dict[str, bool]:
    """Folder -> it may be written to."""
    assert all(volume["source"] == volume["target"] for volume in service(made)["volumes"])
    assert not any(volume["bind"]["create_host_path"] for volume in service(made)["volumes"])
    return {volume["source"]: not volume["read_only"] for volume in service(made)["volumes"]}


def parsed(made: Container) -> dict[str, Any]:
    """The arguments in the container, as the real command reads them."""
    name, *rest = made.arguments
    command = command_line.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    return command.make_context(name, rest).params


# --- what the container is given -------------------------------------------------------------------------------------


def test_the_container_trains_the_numbers_of_the_plan(root: Path, in_empty_folder: Path) -> None:
    made = container(data_root=root, num_processes=2, overrides=("engine.seed=7",), lr_scaling="sqrt", run="first")
    plan, options = made.run.plan, parsed(made)
    assert options["backend"] == "local"
    assert (options["device"], options["num_processes"]) == ("cpu", 2)
    assert (options["batch_size"], options["gradient_accumulation"]) == (plan.device_batch, plan.accumulation)
    assert (options["workers"], options["grace_seconds"]) == (plan.workers, plan.grace_seconds)
    assert (options["precision"], options["epochs"], options["lr_scaling"]) == (plan.precision, plan.epochs, "sqrt")
    assert options["overrides"] == ()  # they are in the recipe that is written for it
    assert options["config"] == str(in_empty_folder / "outputs/first/docker/recipe.yaml")
    assert docker.container_recipe(made.run).engine.seed == 7


def test_memory_and_time_to_save_follow_the_plan(root: Path) -> None:
    made = container(data_root=root, num_processes=2, workers=3, grace_seconds=100)
    given = service(made)
    assert given["shm_size"] >= made.run.plan.shared_memory_bytes > 0
    assert int(given["stop_grace_period"].removesuffix("s")) > 100
    assert given["user"] == "1234:1235"


def test_data_are_read_only_and_outputs_are_not(root: Path, in_empty_folder: Path, tmp_path: Path) -> None:
    made = container(data_root=root, output_dir=tmp_path / "my outputs")
    assert mounted(made) == {str(root): False, str(tmp_path / "my outputs"): True}
    assert service(made)["working_dir"] == str(in_empty_folder)


def test_a_missing_index_may_be_written_beside_the_data(root: Path) -> None:
    for table in docker_tables():
        (root / "v1.0-synthetic" / f"{table}.json").touch()
    (root / "index" / "v1.0-synthetic" / "header.json").unlink()
    assert mounted(container(data_root=root))[str(root / "index")]
    assert not mounted(container(data_root=root))[str(root)]


def docker_tables() -> tuple[str, ...]:
    from configs.nuscenes import TABLES

    return tuple(TABLES)


def test_the_synthetic_set_is_made_in_the_container(in_empty_folder: Path) -> None:
    made = container()
    assert mounted(made)[str(in_empty_folder / "data/synthetic")]
    assert parsed(made)["data_root"] is None


def test_an_index_elsewhere_and_links_out_of_the_data_root(root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "samples"
    disk.mkdir(parents=True)
    (root / "samples").symlink_to(disk)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    index = tmp_path / "indexes"
    (root / "index").rename(index)
    made = container(data_root=root, index_dir=index)
    assert mounted(made) == {
        str(root): False, str(disk): False, str(index): False, str(made.run.choices.run_dir.parent): True,
    }  # fmt: skip


def test_gpus_are_named_by_uuid_and_counted_from_zero_inside(root: Path) -> None:
    made = container(GPUS, data_root=root, gpus=(1, 3), config="synthetic/bevnext-tiny")
    (devices,) = service(made)["deploy"]["resources"]["reservations"]["devices"]
    assert devices == {"driver": "nvidia", "device_ids": ["GPU-1", "GPU-3"], "capabilities": ["gpu"]}
    assert (parsed(made)["num_gpus"], parsed(made)["gpus"]) == (2, None)
    assert service(container(data_root=root))["deploy"]["resources"]["reservations"]["devices"] == []


def test_batch_auto_and_elastic_runs_stay_open(root: Path) -> None:
    auto = parsed(container(GPUS, data_root=root, batch_size="auto"))
    assert (auto["batch_size"], auto["gradient_accumulation"]) == ("auto", None)
    elastic = parsed(container(data_root=root, num_processes=1, nnodes=(1, 2), rdzv_endpoint="a:29400"))
    assert (elastic["nnodes"], elastic["gradient_accumulation"]) == ((1, 2), None)


def test_several_containers_meet_on_a_network(root: Path) -> None:
    options: dict[str, Any] = {"data_root": root, "num_processes": 1, "nnodes": (2, 2), "rdzv_endpoint": "a:29400"}
    joined = yaml.load(override_text(container(**options, network="training")), _Loader)
    (name,) = joined["services"]["train"]["networks"]
    assert joined["networks"] == {name: {"external": True, "name": "training"}}
    on_host = container(**options, network="host")
    assert (service(on_host)["network_mode"], service(on_host)["networks"]) == ("host", None)
    assert "!reset" in override_text(on_host)
    assert parsed(on_host)["rdzv_endpoint"] == "a:29400"


def test_compose_changes_nothing_in_names(root: Path) -> None:
    made = container(data_root=root, run="it's $HOME ${X}")
    text = json.dumps(service(made))
    assert text.count("$") == text.count("$$") * 2
    assert made.name.startswith("bevnext-sam2-it-s-HOME-X-")


def test_secrets_are_named_and_not_written_down(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tell nobody")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/a/path/of/the/host")
    made = container(data_root=root)
    assert "AWS_SECRET_ACCESS_KEY" in service(made)["environment"]
    assert "AWS_CA_BUNDLE" not in service(made)["environment"]
    assert "tell nobody" not in override_text(made)


def test_weights_come_along(root: Path, tmp_path: Path) -> None:
    weights = tmp_path / "elsewhere" / "w.safetensors"
    weights.parent.mkdir()
    weights.touch()
    made = container(data_root=root, overrides=(f"model.weights={weights}",))
    assert mounted(made)[str(weights.parent)] is False
    assert docker.container_recipe(made.run).model.weights == str(weights)


def test_published_weights_are_found_where_the_host_keeps_them(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEVNEXT_SAM2_CHECKPOINTS", str(tmp_path / "published"))
    made = container(data_root=root, config="bevnext/bevnext-stage1", version="v1.0-synthetic")
    assert mounted(made)[str(tmp_path / "published")] is False
    assert f"BEVNEXT_SAM2_CHECKPOINTS={tmp_path / 'published'}" in service(made)["environment"]


def test_two_starts_have_two_names(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = docker.default_name("run")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert docker.default_name("run") != first


# --- how the engine is called ----------------------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a played engine that is first on the PATH."""
    here = tmp_path / "engine"
    here.mkdir()
    program = here / "docker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_docker.py")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("FAKE_DOCKER", str(here))
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return here


def calls(engine: Path) -> list[list[str]]:
    return [json.loads(line) for line in (engine / "calls").read_text().splitlines()]


@pytest.fixture
def train(root: Path, engine: Path) -> Callable[..., int]:
    def call(*options: str) -> int:
        return run(["train", "--docker", "--data-root", str(root), "--no-gpu", "--run", "r", *options])

    return call


def test_start_follow_and_clean_up(
    train: Callable[..., int], engine: Path, in_empty_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (engine / "exit_code").write_text("0")
    assert train("--container-name", "mine") == 0
    run_dir = in_empty_folder / "outputs" / "r"
    (started,) = [call for call in calls(engine) if "run" in call]
    files = ["--file", str(ROOT / "compose.yaml"), "--file", str(run_dir / "docker" / "mine.yaml")]
    assert started == [
        *("compose", "--project-directory", str(ROOT), *files),
        *("run", "--detach", "--no-deps", "--name", "mine", "train"),
    ]
    assert calls(engine)[-1] == ["rm", "--force", "mine"]
    assert yaml.load((run_dir / "docker" / "mine.yaml").read_text(), _Loader)["services"]["train"]["command"][:2] == [
        "bevnext-sam2",
        "train",
    ]
    assert (run_dir / "docker" / "recipe.yaml").is_file()
    shown = capfd.readouterr()
    assert "a step" in shown.out
    assert "a warning" in shown.err


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 76, 77])
def test_exit_codes_come_through(code: int, train: Callable[..., int], engine: Path) -> None:
    (engine / "exit_code").write_text(str(code))
    assert train() == code


def test_a_container_that_was_killed_for_its_memory(
    train: Callable[..., int], engine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (engine / "exit_code").write_text("137")
    (engine / "oom").write_text("yes")
    assert train() == ExitCode.CRASHED
    error = capfd.readouterr().err
    assert "for its memory" in error
    assert "--batch-size" in error


def send_when_running(engine: Path, *numbers: signal.Signals) -> threading.Thread:
    def send() -> None:
        for number in numbers:
            deadline, before = time.monotonic() + 240, sum("kill" in call for call in calls(engine)) if numbers else 0
            while not any(call[0] == "wait" for call in calls(engine)) and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(os.getpid(), number)
            while sum("kill" in call for call in calls(engine)) == before and time.monotonic() < deadline:
                time.sleep(0.05)

    (engine / "calls").touch()
    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_ctrl_c_asks_the_container_to_save(train: Callable[..., int], engine: Path) -> None:
    sender = send_when_running(engine, signal.SIGINT)
    assert train() == ExitCode.PREEMPTED
    sender.join()
    (kill,) = [call for call in calls(engine) if call[0] == "kill"]
    assert kill[:3] == ["kill", "--signal", "SIGINT"]


def test_a_second_signal_ends_it_at_once(train: Callable[..., int], engine: Path) -> None:
    (engine / "deaf").touch()
    sender = send_when_running(engine, signal.SIGTERM, signal.SIGTERM)
    assert train() == ExitCode.CRASHED
    sender.join()
    assert [call[2] for call in calls(engine) if call[0] == "kill"] == ["SIGTERM", "SIGKILL"]


def test_detached_it_goes_on_alone(train: Callable[..., int], engine: Path) -> None:
    assert train("--detach") == 0
    (started,) = [call for call in calls(engine) if "run" in call]
    assert "--rm" in started
    assert not any(call[0] in ("wait", "rm", "kill") for call in calls(engine))


def test_json_is_all_on_standard_output(
    train: Callable[..., int], engine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (engine / "exit_code").write_text("0")
    assert train("--json") == 0
    assert json.loads(capfd.readouterr().out)["plan"]["devices"] >= 1


# --- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "words", "fix"),
    [
        ("version", "does not answer", "doctor"),
        ("compose version", "no Compose", "docker-compose-plugin"),
        ("image inspect", "no such image", "scripts/build.sh"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(
    broken: str,
    words: str,
    fix: str,
    train: Callable[..., int],
    engine: Path,
    in_empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (engine / "broken").write_text(broken)
    assert train() == ExitCode.BAD_USAGE
    error = capsys.readouterr().err
    assert words in error
    assert fix in error
    assert list(in_empty_folder.iterdir()) == []


def test_without_docker(
    train: Callable[..., int], engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert train() == ExitCode.BAD_USAGE
    assert "no `docker`" in capsys.readouterr().err


def test_a_running_container_is_never_replaced(
    train: Callable[..., int], engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (engine / "container").write_text("mine")
    assert train("--container-name", "mine") == ExitCode.BAD_USAGE
    assert "there is a container of that name" in capsys.readouterr().err
    (engine / "container").unlink()
    (engine / "others").write_text("the-first\n")
    assert train() == ExitCode.BAD_USAGE
    assert "the-first is training in" in capsys.readouterr().err
    (engine / "exit_code").write_text("0")
    assert train("--nnodes", "2", "--rdzv-endpoint", "the-first:29400") == 0  # the other node of the same run
    (engine / "calls").unlink()
    (engine / "calls").touch()
    assert not any(call[0] in ("kill", "rm") or "run" in call for call in calls(engine))


def test_a_toolkit_that_is_missing(train: Callable[..., int], engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (engine / "broken").write_text("run")
    (engine / "error").write_text('Error response from daemon: could not select device driver "nvidia"')
    assert train() == ExitCode.CRASHED
    error = capsys.readouterr().err
    assert "select device driver" in error
    assert "setup_gpu.sh" in error
    assert calls(engine)[-1][0] == "rm"  # what was created and could not start


def test_options_of_containers_are_for_containers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--detach", "--container-name=mine", "--network=net"):
        assert run(["train", "--native", "--data-root", str(root), option, "--dry-run"]) == ExitCode.BAD_USAGE
        assert "--backend docker" in capsys.readouterr().err
    assert run(["train", "--docker", "--container-name", "a b", "--dry-run"]) == ExitCode.BAD_USAGE


def test_dry_run_shows_the_exact_commands_and_asks_nobody(
    train: Callable[..., int], engine: Path, in_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--container-name", "mine", "--dry-run") == 0
    output = capsys.readouterr().out
    assert f"env BEVNEXT_SAM2_DEVICE=cpu docker compose --project-directory {ROOT}" in output
    assert "run --detach --no-deps --name mine train" in output
    assert "create_host_path: false" in output
    assert not (engine / "calls").exists()
    assert list(in_empty_folder.iterdir()) == []


def test_containers_do_not_run_as_root(
    root: Path, in_empty_folder: Path, engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_root = Path("/usr/share")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert docker_run._user(in_empty_folder / "new" / "run") == (docker_run.USER, docker_run.USER)
    assert docker_run._user(of_root) == (docker_run.USER, docker_run.USER)
    line = ["train", "--docker", "--data-root", str(root), "--no-gpu", "--output-dir", str(of_root), "--dry-run"]
    assert run(line) == ExitCode.BAD_USAGE
    assert "sudo chown -R 1000:1000 /usr/share" in capsys.readouterr().err
    monkeypatch.setattr(os, "getuid", lambda: 500)
    monkeypatch.setattr(os, "getgid", lambda: 501)
    assert docker_run._user(of_root) == (500, 501)
