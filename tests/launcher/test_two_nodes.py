"""Two machines in network namespaces train one run; one of them loses power, and the weights come out the same.

With BEVNEXT_SAM2_TWO_NODES_LOG=FILE the story is written down there.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import Machine, can_make_machines, two_machines

from benchmarks.machine import measured_on
from launcher.own_process import ROOT, quoted

STEPS = 48
KILL_AFTER = 8
PATIENCE = 400.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not can_make_machines(), reason="needs root and network namespaces"),
]


BRIEFLY = ("starts: ", "goes on after", "stopped as asked", "done after", "error", "starting again")


class Story:
    """What happened when, for the reader of the log."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.path = os.environ.get("BEVNEXT_SAM2_TWO_NODES_LOG")
        if self.path:
            Path(self.path).write_text(f"two machines in network namespaces; {json.dumps(measured_on('torch'))}\n")

    def tell(self, text: str) -> None:
        line = f"{time.monotonic() - self.begun:7.1f} s  {text}"
        print(line)
        if self.path:
            with Path(self.path).open("a") as file:
                file.write(line + "\n")


class Cluster:
    """Both machines, and the runs they train."""

    def __init__(self, machines: tuple[Machine, Machine], data: Path, story: Story) -> None:
        self.machines = machines
        self.data = data
        self.story = story

    def start(self, machine: Machine, run: str, nodes: str) -> subprocess.Popen[bytes]:
        """The same command on each machine, and again when it comes back."""
        data = ["--data-root", str(self.data), "--version", "v1.0-synthetic", "--set", "data.source_size=[90, 160]"]
        work = ["--config", "synthetic/bevnext-smoke", "--epochs", "8", "--num-processes", "1", "--workers", "1"]
        saves = ["--set", "engine.checkpoint_every=4", "--output-dir", str(self.run_dir(run).parent), "--run", run]
        meet = ["--nnodes", nodes, "--rdzv-endpoint", f"{self.machines[0].name}:29400"]
        meet += ["--max-restarts", "3", "--retries", "3"]
        arguments = ["train", *work, *data, *saves, "--resume", "auto", *meet]
        self.story.tell(f"{machine.name}$ {quoted(['bevnext-sam2', *arguments]).replace(str(self.data.parent), 'DIR')}")
        log = self.run_dir(run).with_name(f"{run}-{machine.name}.log")
        log.parent.mkdir(exist_ok=True)
        command = machine.command([sys.executable, "-m", "launcher", *arguments])
        with log.open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, start_new_session=True)

    def run_dir(self, run: str) -> Path:
        return self.data.parent / "runs" / run

    def wait_for_step(self, run: str, step: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (self.run_dir(run) / "checkpoints" / f"step_{step:08d}").is_dir():
            assert process.poll() is None, "it ended before"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.story.tell(f"checkpoint of step {step} is there")

    def finish(self, run: str, *processes: subprocess.Popen[bytes], expected: int = 0) -> None:
        codes = [process.wait(PATIENCE) for process in processes]
        self.story.tell(f"exit codes {codes}")
        for machine in self.machines:
            for line in (self.run_dir(run).with_name(f"{run}-{machine.name}.log")).read_text().splitlines():
                if any(words in line for words in BRIEFLY):
                    self.story.tell(f"  {machine.name} said: {line.replace(str(self.data.parent), 'DIR')}")
        assert codes == [expected] * len(processes)

    def digests(self, run: str) -> dict[str, str]:
        """SHA-256 of the last weights and their average."""
        place = self.run_dir(run) / "checkpoints" / f"step_{STEPS:08d}"
        found = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(place.glob("*.safetensors"))
        }
        for name, digest in found.items():
            self.story.tell(f"  {run}: {name} {digest[:32]}...")
        assert set(found) == {"model.safetensors", "ema.safetensors"}
        return found

    def losses(self, run: str) -> dict[int, float]:
        lines = (self.run_dir(run) / "metrics.jsonl").read_text().splitlines()
        return {line["step"]: line["loss"] for line in map(json.loads, lines) if line["event"] == "train"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from scenes.index import build_index
    from scenes.synthetic import make_synthetic

    data = tmp_path_factory.mktemp("cluster") / "data"
    make_synthetic(data, scenes=5, samples_per_scene=6, image_size=(90, 160), workers=1, progress=False)
    build_index(data, "v1.0-synthetic", progress=False)
    with two_machines() as machines:
        yield Cluster(machines, data, Story())


@pytest.fixture(scope="module")
def straight(cluster: Cluster) -> dict[str, str]:
    """The weights of a run that nobody disturbs."""
    cluster.story.tell("two machines, undisturbed")
    first, second = cluster.machines
    cluster.finish("straight", cluster.start(first, "straight", "2"), cluster.start(second, "straight", "2"))
    return cluster.digests("straight")


def test_a_machine_that_comes_back_changes_nothing(cluster: Cluster, straight: dict[str, str]) -> None:
    cluster.story.tell("two machines, one loses power and comes back")
    first, second = cluster.machines
    stays, leaves = cluster.start(first, "disturbed", "2"), cluster.start(second, "disturbed", "2")
    cluster.wait_for_step("disturbed", KILL_AFTER, stays)
    cluster.story.tell(f"power off: SIGKILL to all {len(second.processes())} processes of {second.name}")
    second.power_off()
    leaves.wait()
    cluster.finish("disturbed", stays, cluster.start(second, "disturbed", "2"))
    assert cluster.digests("disturbed") == straight
    assert cluster.losses("disturbed") == cluster.losses("straight")
    cluster.story.tell("bit-equal to the undisturbed run, every step's loss, too")


def test_the_machine_of_the_rendezvous_may_come_back_too(cluster: Cluster, straight: dict[str, str]) -> None:
    cluster.story.tell("two machines, the one where they meet loses power and comes back")
    first, second = cluster.machines
    leaves, stays = cluster.start(first, "beheaded", "2"), cluster.start(second, "beheaded", "2")
    cluster.wait_for_step("beheaded", KILL_AFTER, stays)
    cluster.story.tell(f"power off: SIGKILL to all {len(first.processes())} processes of {first.name}")
    first.power_off()
    leaves.wait()
    cluster.finish("beheaded", cluster.start(first, "beheaded", "2"), stays)
    assert cluster.digests("beheaded") == straight
    cluster.story.tell("bit-equal to the undisturbed run")


def test_a_stop_of_one_machine_is_a_stop_of_the_run(cluster: Cluster, straight: dict[str, str]) -> None:
    cluster.story.tell("two machines, one is asked to stop, as when a cluster drains it")
    first, second = cluster.machines
    both = [cluster.start(machine, "drained", "2") for machine in (first, second)]
    cluster.wait_for_step("drained", KILL_AFTER, both[0])
    both[1].terminate()
    cluster.story.tell(f"SIGTERM to the launcher of {second.name}")
    cluster.finish("drained", *both, expected=75)
    cluster.finish("drained", *(cluster.start(machine, "drained", "2") for machine in (first, second)))
    assert cluster.digests("drained") == straight
    cluster.story.tell("bit-equal to the undisturbed run")


def test_an_elastic_run_goes_on_with_the_machine_that_is_left(cluster: Cluster, straight: dict[str, str]) -> None:
    cluster.story.tell("one or two machines, one loses power for good")
    first, second = cluster.machines
    stays, leaves = cluster.start(first, "elastic", "1:2"), cluster.start(second, "elastic", "1:2")
    cluster.wait_for_step("elastic", KILL_AFTER, stays)
    second.power_off()
    leaves.wait()
    cluster.story.tell(f"{second.name} has lost power")
    cluster.finish("elastic", stays)
    cluster.digests("elastic")
    plan = json.loads((cluster.run_dir("elastic") / "plan.json").read_text())
    assert (plan["nodes"], plan["devices"], plan["effective_batch"]) == (1, 1, 4)
    expected, found = cluster.losses("straight"), cluster.losses("elastic")
    assert found.keys() == expected.keys()
    apart = max(abs(found[step] - expected[step]) / expected[step] for step in expected)
    cluster.story.tell(f"finished on one machine, same steps of 4 samples; losses differ by at most {apart:.1e}")
    assert apart < 0.05  # batch norm sees other micro-batches
