"""Jobs for clusters: equal to golden files, valid for their engines, and run for real where the engine can be played.

BEVNEXT_SAM2_WRITE_GOLDEN=1 writes the golden files again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import BevnextError, DataError, UsageError
from launcher.backends import kubernetes, slurm
from launcher.backends.submission import plan_job, show_job, submit_job, texts
from launcher.options import TrainRequest, train_options
from launcher.own_process import ROOT
from launcher.train_arguments import train_arguments

GOLDEN = ROOT / "tests" / "golden" / "jobs"
NODES: dict[str, Any] = {"num_gpus": 4, "cpus_per_node": 32, "run": "first-run"}
TWO_NODES: dict[str, Any] = {**NODES, "nnodes": (2, 2)}


def in_container(**more: Any) -> TrainRequest:
    claims = {"data_claim": "nuscenes", "output_claim": "outputs"}
    place = {"data_root": Path("/data/nuscenes"), "output_dir": Path("/outputs"), **claims}
    return TrainRequest(**{"backend": "kubernetes", "config": "bevnext/bevnext-stage1", **place, **more})


@pytest.fixture
def on_slurm(root: Path, in_empty_folder: Path) -> Callable[..., TrainRequest]:
    """Requests for Slurm on a data set of 24 samples."""

    def make(**more: Any) -> TrainRequest:
        return TrainRequest(**{"backend": "slurm", "data_root": root, "effective_batch": 16, **more})

    return make


# --- golden files ----------------------------------------------------------------------------------------------------


def check_golden(name: str, text: str, tmp_path: Path) -> None:
    for place, stands_for in ((sys.executable, "PYTHON"), (str(ROOT), "CHECKOUT"), (str(tmp_path), "DIR")):
        text = text.replace(place, stands_for)
    golden = GOLDEN / name
    if os.environ.get("BEVNEXT_SAM2_WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(("name", "nodes"), [("one_node.sbatch", NODES), ("two_nodes.sbatch", TWO_NODES)])
def test_slurm_script(name: str, nodes: dict[str, Any], on_slurm: Callable[..., TrainRequest], tmp_path: Path) -> None:
    request = on_slurm(**nodes, slurm=("partition=gpu", "time=8:00:00"), overrides=("engine.seed=1",))
    check_golden(name, texts(plan_job(request))["slurm.sh"], tmp_path)


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("two_nodes", in_container(**TWO_NODES, namespace="perception", overrides=("engine.seed=1",))),
        ("one_node_cpu", in_container(num_processes=2, config="synthetic/bevnext-tiny", run="On CPU", data_claim=None)),
    ],
)
def test_manifests(name: str, request_: TrainRequest, tmp_path: Path) -> None:
    found = texts(plan_job(request_))
    assert len(found) == 2
    for file, text in found.items():
        check_golden(f"{name}.{file.split('.', 1)[1]}", text, tmp_path)


# --- valid for their engines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.sbatch")), ids=lambda path: path.name)
def test_slurm_scripts_are_sound_shell(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, "--severity", "style", path], check=True)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.name)
def test_manifests_are_what_the_api_knows(path: Path) -> None:
    """Through the models that Kubeflow generates from the API; what they do not know would be lost on the way."""
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="extra `dev` is not installed")
    kinds = {
        "TrainJob": models.TrainerV1alpha1TrainJob,
        "Job": models.IoK8sApiBatchV1JobSpec,
    }
    for manifest in yaml.safe_load_all(path.read_text()):
        if manifest["kind"] == "Service":
            assert manifest["spec"]["clusterIP"] == "None"
            continue
        content = manifest if manifest["kind"] == "TrainJob" else manifest["spec"]
        assert kinds[manifest["kind"]].from_dict(content).to_dict() == content


def test_pods_are_hardened_and_have_the_time_to_save() -> None:
    job = plan_job(in_container(**TWO_NODES, grace_seconds=100))
    _, manifest = kubernetes.plain_job(job)
    pod = manifest["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["terminationGracePeriodSeconds"] > 100 + 10
    shared = next(volume for volume in pod["volumes"] if volume["name"] == "shared-memory")
    assert int(shared["emptyDir"]["sizeLimit"].removesuffix("Mi")) << 20 >= job.run.plan.shared_memory_bytes
    rules = {
        rule["action"]: rule["onExitCodes"]["values"]
        for rule in reversed(manifest["spec"]["podFailurePolicy"]["rules"])
        if "onExitCodes" in rule
    }
    assert rules == {"FailJob": [2, 3, 76], "Ignore": [75]}


# --- every argument arrives ------------------------------------------------------------------------------------------

texts_of_users = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=15)
requests = st.builds(
    TrainRequest,
    config=st.none() | texts_of_users,
    overrides=st.lists(texts_of_users, max_size=3).map(tuple),
    version=st.none() | texts_of_users,
    device=st.sampled_from(["auto", "cpu", "cuda"]),
    num_gpus=st.none() | st.integers(1, 9),
    gpus=st.none() | st.lists(st.integers(0, 9), min_size=1).map(tuple),
    distributed=st.sampled_from([None, "dp", "ddp"]),
    batch_size=st.sampled_from([None, 3, "auto"]),
    mixed_precision=st.sampled_from([None, True, False]),
    workers=st.none() | st.integers(0, 9),
    retries=st.integers(0, 3),
    nnodes=st.sampled_from([None, (1, 4), (2, 2)]),
    slurm=st.sampled_from([(), ("partition=a b", "exclusive")]),
    basic_training=st.booleans(),
    as_json=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(request_=requests)
def test_a_request_survives_the_command_line(request_: TrainRequest) -> None:
    received: list[TrainRequest] = []

    @click.command()
    @train_options
    def catch(request: TrainRequest) -> None:
        received.append(request)

    catch.main(train_arguments(request_), standalone_mode=False)
    assert received == [request_]


def expanded_by_kubernetes(text: str) -> str:
    """What a container gets: `$(NAME)` is replaced where NAME is known, `$$` is `$`, all else stays."""
    known = {"HOME": "/tmp"}
    return re.sub(
        r"\$\$|\$\(([^)]*)\)",
        lambda found: "$" if found[0] == "$$" else known.get(found[1], found[0]),
        text,
    )


@settings(max_examples=60, deadline=None)
@given(override=st.text(st.sampled_from("$(){}HOME a\n'\"\\ü"), max_size=12))
def test_kubernetes_changes_no_argument(override: str) -> None:
    job = plan_job(in_container(**NODES))
    job.arguments.append(override)
    for render in (kubernetes.train_job, kubernetes.plain_job):
        (manifest,) = yaml.safe_load_all(kubernetes.as_yaml(render(job)))
        spec = manifest["spec"]
        container = spec["trainer"] if "trainer" in spec else spec["template"]["spec"]["containers"][0]
        assert [expanded_by_kubernetes(text) for text in container["args"]] == job.arguments


# --- Slurm, played ---------------------------------------------------------------------------------------------------

PLAYED = {
    "sbatch": 'echo "Submitted batch job 4242"',
    "scontrol": 'if [ "$1" = show ]; then printf "nid7\\nnid8\\n"; else echo "$@" >>"$FOLDER/scontrol.calls"; fi',
    "srun": 'printf "%s\\0" "$@" >"$FOLDER/srun.calls"; [ -z "${SIGNAL:-}" ] || kill -TERM "$PPID"; exit "$CODE"',
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, which only tell how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in PLAYED.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def play(script: Path, cluster: Path, code: int, **more: str) -> int:
    environment = {"FOLDER": str(cluster), "CODE": str(code), "SLURM_JOB_ID": "4242", "SLURM_JOB_NODELIST": "nid[7-8]"}
    done = subprocess.run(["bash", script], env={**os.environ, **environment, **more}, timeout=240, check=False)
    return done.returncode


def test_a_job_is_submitted_and_starts_itself_again_when_it_was_saved(
    cluster: Path, on_slurm: Callable[..., TrainRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    request = on_slurm(**TWO_NODES, overrides=("engine.seed=1", "data.train_split=it's $HOME\n"))
    with pytest.raises(UsageError):  # no such split; but any text is kept
        submit_job(request)
    request = on_slurm(**TWO_NODES, config="synthetic/bevnext-tiny", overrides=("summary=it's $HOME\n ü",))
    assert submit_job(request) == 0
    assert "Submitted batch job 4242" in capsys.readouterr().out
    script = slurm.script_path(plan_job(request))
    assert play(script, cluster, 0) == 0
    called = (cluster / "srun.calls").read_text().split("\0")[:-1]
    assert called[:6] == ["--kill-on-bad-exit=0", "--cpus-per-task=32", sys.executable, "-m", "launcher", "train"]
    assert called[-1] == f"--rdzv-endpoint=nid7:{20000 + 4242}"
    assert "--set=summary=it's $HOME\n ü" in called
    assert {"--resume=auto", "--nnodes=2", "--num-gpus=4", "--max-restarts=3"} <= set(called)
    assert not (cluster / "scontrol.calls").exists()
    assert play(script, cluster, 1) == 1
    assert play(script, cluster, 76) == 76
    assert play(script, cluster, 75, SIGNAL="yes") == 75  # scancel: it must not come back
    assert not (cluster / "scontrol.calls").exists()
    assert play(script, cluster, 75) == 75
    assert (cluster / "scontrol.calls").read_text() == "requeue 4242\n"


def test_a_refused_job_and_a_machine_without_slurm(
    cluster: Path, on_slurm: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster / "sbatch").write_text("#!/bin/sh\necho 'invalid partition' >&2\nexit 1\n")
    with pytest.raises(BevnextError, match="exit code 1: invalid partition"):
        submit_job(on_slurm(**NODES))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="no sbatch here"):
        submit_job(on_slurm(**NODES))


# --- shown, written, refused -----------------------------------------------------------------------------------------


def test_a_preview_writes_nothing(
    on_slurm: Callable[..., TrainRequest], in_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_job(on_slurm(**TWO_NODES))
    assert "#SBATCH --nodes=2" in capsys.readouterr().out
    show_job(on_slurm(**TWO_NODES, as_json=True))
    shown = json.loads(capsys.readouterr().out)
    assert shown["plan"]["devices"] == 8
    assert "#SBATCH --nodes=2" in shown["job"]["slurm.sh"]
    show_job(in_container(**TWO_NODES))
    text = capsys.readouterr().out
    assert re.search(r"samples per epoch +unknown +unknown: the data set cannot be read from here", text)
    assert "kind: TrainJob" in text
    assert "steps per epoch" not in text
    assert not list(in_empty_folder.iterdir())


def test_manifests_are_written_where_asked(in_empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit_job(in_container(**TWO_NODES, manifests=Path("k8s"))) == 0
    assert sorted(path.name for path in Path("k8s").iterdir()) == ["first-run.job.yaml", "first-run.trainjob.yaml"]
    assert "kubectl apply -f k8s/first-run.job.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "--num-gpus N"),
        ({"num_gpus": 1, "gpus": (0,)}, "the cluster chooses"),
        ({"num_gpus": 1, "nnodes": (1, 2)}, "fixed number of machines"),
        ({"num_gpus": 1, "rdzv_endpoint": "h:1"}, "chooses it"),
        ({"num_gpus": 1, "resume": "/some/where"}, "started several times"),
        ({"num_gpus": 1, "run": "a run"}, "#SBATCH line"),
    ],
)
def test_what_a_job_cannot_be(more: dict[str, Any], words: str, on_slurm: Callable[..., TrainRequest]) -> None:
    with pytest.raises(UsageError) as caught:
        texts(plan_job(on_slurm(**more)))
    assert words in str(caught.value)


def test_paths_in_containers_are_absolute_and_names_plain() -> None:
    with pytest.raises(UsageError, match="folder in the container"):
        plan_job(in_container(**{**NODES, "data_root": None}))
    with pytest.raises(UsageError, match="no job can be called"):
        texts(plan_job(in_container(**{**NODES, "run": "日本"})))


def test_nodes_do_not_race_to_make_an_index(make_root, on_slurm: Callable[..., TrainRequest]) -> None:
    root = make_root(name="other")
    (root / "index" / "v1.0-synthetic" / "header.json").write_text("{}")
    with pytest.raises(DataError):
        plan_job(on_slurm(**TWO_NODES, data_root=root))
