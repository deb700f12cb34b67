"""`monitor`: runs that are written, dead or odd; the screen; JSON; other monitors' views."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_up_run import machine, write_run
from made_up_traces import STEP, run
from rich.console import Console

from configs.errors import ExitCode, UsageError
from monitoring.commands import monitor
from monitoring.exporter import Exporter
from monitoring.live import show
from monitoring.run_lines import RunLines
from monitoring.run_reader import RunReader
from monitoring.samples import Alert
from monitoring.screen import draw
from monitoring.view import View
from monitoring.watcher import LocalWatcher, RemoteWatcher, open_watcher

# --- run directories --------------------------------------------------------------------------------------------------


def append(directory: Path, text: str) -> None:
    with (directory / "metrics.jsonl").open("a") as file:
        file.write(text)


def test_a_run_that_trains(tmp_path: Path) -> None:
    found = RunReader(write_run(tmp_path / "stage2")).read()
    assert (found.name, found.recipe, found.state) == ("stage2", "bevnext/bevnext-stage2", "training")
    assert (found.step, found.total_steps, found.epochs) == (130, 46320, 24)
    assert found.figures["eta_seconds"] == 43210.0
    assert found.terms == {"loss_depth": 1.5, "loss_boxes": 1.0}
    assert len(found.ranks) == 8
    assert found.seconds["forward"] == pytest.approx(0.2, rel=0.05)
    assert [one.cause for one in found.verdicts] == ["compute"]
    assert found.alerts == ()
    assert found.idle_seconds is not None
    assert found.idle_seconds < 60


def test_a_run_before_its_first_line_and_an_empty_folder(tmp_path: Path) -> None:
    for directory in (write_run(tmp_path / "begun", []), tmp_path):
        found = RunReader(directory).read()
        assert (found.state, found.step, found.alerts) == ("starting", None, ())


def test_lines_are_read_once_and_half_ones_later(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", run(windows=2))
    lines = RunLines(directory / "metrics.jsonl")
    before = len(lines.read())
    append(directory, '{"event": "train", "st')
    assert len(lines.read()) == before
    append(directory, 'ep": 99}\nnot json\n[1]\n{"event": "x"}\n{"event": "fault", "step": 100}\n')
    assert [line["step"] for line in lines.read()][before:] == [99, 100]
    (directory / "new").write_text('{"event": "train", "step": 7}\n')  # the run goes back: the file is replaced
    (directory / "new").replace(directory / "metrics.jsonl")
    assert [line["step"] for line in lines.read()] == [7]
    (directory / "metrics.jsonl").unlink()
    assert lines.read() == []


def test_a_file_cut_at_any_byte_is_a_view(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", run(windows=1))
    whole = (directory / "metrics.jsonl").read_bytes()
    plan = (directory / "plan.json").read_bytes()
    for length in range(0, len(whole), 97):
        (directory / "metrics.jsonl").write_bytes(whole[:length])
        (directory / "plan.json").write_bytes(plan[: length % len(plan)])
        assert RunReader(directory).read().name == "run"


@pytest.mark.parametrize(
    ("code", "state", "alerts"),
    [(0, "done", 0), (1, "crashed", 1), (2, "refused", 0), (3, "crashed", 1), (75, "stopped", 0), (76, "crashed", 1),
     (77, "hung", 1), (99, "crashed", 1)],
)  # fmt: skip
def test_runs_that_have_ended(tmp_path: Path, code: int, state: str, alerts: int) -> None:
    directory = write_run(tmp_path / "run")
    (directory / "outcome.json").write_text(json.dumps({"exit_code": code, "error": "because\nof"}))
    found = RunReader(directory).read()
    assert (found.state, len(found.alerts)) == (state, alerts)
    assert "because" in found.state_text
    assert ("unknown exit code 99" in found.state_text) == (code == 99)


@pytest.mark.parametrize(
    "content", ["[1]", "{}", '{"exit_code": "bad"}', '{"exit_code": null, "error": 3}', '{"exit', ""]
)
def test_an_outcome_that_says_nothing_is_none(tmp_path: Path, content: str) -> None:
    directory = write_run(tmp_path / "run")
    (directory / "outcome.json").write_text(content)
    assert RunReader(directory).read().state == "training"


def test_a_run_whose_processes_are_gone(tmp_path: Path) -> None:
    lines = run(ranks=2)
    directory = write_run(tmp_path / "run", lines)
    ended = subprocess.Popen(["true"])
    ended.wait()
    for line in lines:
        for one in line.get("ranks", ()):
            one["pid"] = ended.pid
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = RunReader(directory).read()
    assert (found.state, [alert.kind for alert in found.alerts]) == ("gone", ["ended"])
    for one in lines[-2]["ranks"]:
        one["host"] = "another"  # there it cannot be seen
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert RunReader(directory).read().state == "training"


def test_silence_is_an_alert_and_a_clock_that_jumped_is_not(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    metrics = directory / "metrics.jsonl"
    now = time.time()
    os.utime(metrics, (now - 400, now - 400))
    found = RunReader(directory).read()
    assert (found.state, [alert.kind for alert in found.alerts]) == ("silent", ["no_progress"])
    os.utime(metrics, (now + 10**6, now + 10**6))  # written before the clock was set back
    assert RunReader(directory).read().state == "training"


def test_the_clock_may_jump_while_we_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = RunReader(write_run(tmp_path / "run"))
    reader.read()
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert reader.read().state == "training"


def test_an_evaluation_is_no_silence(tmp_path: Path) -> None:
    lines = run()
    directory = write_run(tmp_path / "run", lines, steps_per_epoch=lines[-1]["step"])
    old = time.time() - 1000
    os.utime(directory / "metrics.jsonl", (old, old))
    assert RunReader(directory).read().state == "training"


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    append(directory, json.dumps({"event": "fault", "step": 131, "reason": "the loss is nan", "tokens": ["a"]}) + "\n")
    found = RunReader(directory).read()
    assert (found.loss_finite, found.faults) == (False, 1)
    assert [alert.kind for alert in found.alerts] == ["not_finite"]
    append(directory, json.dumps({"event": "train", "step": 140, "loss": float("nan"), "ranks": []}) + "\n")
    found = RunReader(directory).read()
    assert (found.loss_finite, "loss" in found.figures) == (True, False)  # it went on; NaN is no value


# --- the screen -------------------------------------------------------------------------------------------------------


def screen(view: View, width: int, height: int) -> list[str]:
    return draw(view, width, height).plain.splitlines()


def view_of(*directories: Path, gpus: int = 8, **different: float) -> View:
    return View(
        time=time.time(), machine=machine(gpus, **different), runs=tuple(RunReader(one).read() for one in directories)
    )


def test_eight_gpus_and_a_run_fit_into_80_by_24(tmp_path: Path) -> None:
    view = view_of(write_run(tmp_path / "stage2", run(ranks=8, of_rank={5: {"forward": 0.5}})))
    lines = screen(view, 80, 24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert sum(f" {rank}:" in line for line in lines for rank in range(8) if "work / median" in line) == 8
    for words in ("GPU  SM%", "rank 5 is slow", "try: look at GPU-5", "ETA 12:00:10", "samples/s 98.5", "forward 25%"):
        assert words in text, text


def test_what_is_missing_is_shown_as_missing(tmp_path: Path) -> None:
    view = view_of(gpus=1)
    assert view.machine is not None
    bare = view.machine.devices[0].model_copy(update={"values": {}, "missing": {"power": "No Permission"}})
    shown = screen(view.model_copy(update={"machine": view.machine.model_copy(update={"devices": (bare,)})}), 80, 24)
    assert shown[2].split() == ["0", "–", "–", "–", "/", "–", "–", "–", "–", "–"]
    assert " 0%" not in shown[2]


def test_utilisation_stands_in_for_activity_and_is_marked(tmp_path: Path) -> None:
    view = view_of(gpus=1)
    assert view.machine is not None
    values = {name: value for name, value in view.machine.devices[0].values.items() if name != "sm_activity"}
    old = view.machine.devices[0].model_copy(update={"values": values})
    shown = screen(view.model_copy(update={"machine": view.machine.model_copy(update={"devices": (old,)})}), 80, 24)
    assert shown[2].split()[1] == "98*"


def test_alerts_are_at_the_top_and_small_windows_say_what_they_hide(tmp_path: Path) -> None:
    view = view_of(*(write_run(tmp_path / f"run{number}") for number in range(6)))
    assert view.machine is not None
    alert = Alert(kind="gpu_lost", subject="GPU 3", text="is lost")
    view = view.model_copy(update={"machine": view.machine.model_copy(update={"alerts": (alert,)})})
    lines = screen(view, 60, 12)
    assert lines[1] == "! GPU 3: is lost"
    assert len(lines) == 12
    assert "more lines" in lines[-1]
    assert len(screen(view, 200, 100)) < 60


def test_any_size_and_any_part_missing(tmp_path: Path) -> None:
    full = view_of(write_run(tmp_path / "run"))
    runs_alone = full.model_copy(update={"machine": None})
    for view in (View(time=0.0), View(time=0.0, problem="no view: refused"), full, runs_alone):
        for width, height in ((20, 5), (80, 24), (300, 100)):
            assert max(map(len, screen(view, width, height))) <= width


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_and_phases_keep_to_the_window(tmp_path: Path, width: int) -> None:
    tiny = {"data_wait": 0.05, "host_to_device": 0.021, "other": 0.022, "checkpoint": 0.06, "optimizer": 0.05}
    for slower in (1, 20):  # ms, and seconds of two figures
        step = {phase: slower * value for phase, value in (STEP | tiny).items()}
        lines = screen(
            view_of(write_run(tmp_path / f"run{slower}", run(2, step=step, exchange=0.1)), gpus=1), width, 50
        )
        (bar,) = (line for line in lines if line.startswith("step "))
        assert width - 2 <= len(bar) <= width
        assert "…" not in bar
        phases = lines[lines.index(bar) + 1]
        assert "forward" in phases
        assert "backward" in phases
        assert "…" not in phases


def test_figures_and_scores_fit(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    scores = {"event": "evaluate", "step": 130, "metrics": {"NDS": 0.5604, "mAP": 0.4567}}
    append(directory, json.dumps(scores) + "\n")
    (line,) = (line for line in screen(view_of(directory), 80, 50) if line.startswith("loss"))
    assert line == "loss 2.5  lr 2.0e-04  |g| 12.5  samples/s 98.5  GiB 88  NDS 0.560  mAP 0.457"


def test_of_many_ranks_the_slowest_are_shown(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "many", run(ranks=64, of_rank={33: {"forward": 0.6}}))
    (line,) = (line for line in screen(view_of(directory), 80, 60) if "work / median" in line)
    assert line.startswith("slowest of 64, work / median  ")
    assert " 33:1.6" in line
    assert "…" not in line
    assert len(line) > 70


def test_ranks_are_judged_over_all_lines_not_by_the_newest(tmp_path: Path) -> None:
    lines = run(ranks=2, windows=20)
    lines[-2]["ranks"][1]["seconds"]["forward"] *= 3  # one hiccup
    found = RunReader(write_run(tmp_path / "run", lines)).read()
    assert found.ranks[1].seconds["forward"] == pytest.approx(0.2, rel=0.15)
    assert [one.cause for one in found.verdicts] == ["compute"]


def test_why_there_are_no_accelerators_is_told_in_full(tmp_path: Path) -> None:
    problem = "no NVIDIA driver here (NVML Shared Library Not Found), and no npu-smi"
    without = machine(0).model_copy(update={"problem": problem})
    told = " ".join(screen(View(time=0.0, machine=without), 80, 24))
    assert problem in told


# --- the command ------------------------------------------------------------------------------------------------------


def test_once_in_words_and_as_json(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "stage2")
    shown = CliRunner().invoke(monitor, [str(directory), "--once", "--backend", "host"])
    assert shown.exit_code == 0
    assert "computes, as it should" in shown.output
    told = CliRunner().invoke(monitor, ["--output-dir", str(tmp_path), "--once", "--json", "--backend", "host"])
    found = View.model_validate_json(told.output)
    assert [one.name for one in found.runs] == ["stage2"]
    assert found.machine is not None
    assert "cpu" in found.machine.host.values


def test_only_runs_that_grow_are_shown_else_the_newest(tmp_path: Path) -> None:
    old = time.time() - 10_000
    for number in range(3):
        os.utime(write_run(tmp_path / f"run{number}") / "metrics.jsonl", (old + number, old + number))
    watcher = LocalWatcher((), tmp_path, "host")
    assert [one.name for one in watcher.look().runs] == ["run2"]
    for name in ("run0", "run1"):
        append(tmp_path / name, "\n")
    assert [one.name for one in watcher.look().runs] == ["run0", "run1"]
    watcher.close()


def test_places_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        open_watcher([str(tmp_path / "no")], tmp_path, "host")
    with pytest.raises(UsageError, match="one exporter address"):
        open_watcher(["http://a:1", str(tmp_path)], tmp_path, "host")
    result = CliRunner().invoke(monitor, ["--serve", "--once"])
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code is ExitCode.BAD_USAGE


def test_an_interval_that_is_no_number() -> None:
    for given in ("nan", "0", "x"):
        done = CliRunner().invoke(monitor, ["--once", "--interval", given])
        assert (done.exit_code, "--interval" in done.output) == (2, True), done.output


def test_one_run_named_twice_and_two_of_one_name(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / parent / "run") for parent in ("a", "b"))
    watcher = LocalWatcher([first, second, tmp_path / "b" / ".." / "b" / "run"], tmp_path, "host")
    assert [one.name for one in watcher.look().runs] == [str(first), str(tmp_path / "b" / ".." / "b" / "run")]
    watcher.close()


class Views:
    """A watcher of prepared views; after the last one somebody presses Ctrl-C."""

    def __init__(self, *views: View) -> None:
        self.views = list(views)

    def look(self) -> View:
        if not self.views:
            raise KeyboardInterrupt
        return self.views.pop(0)

    def close(self) -> None:
        pass


def test_the_live_view_draws_every_look(tmp_path: Path) -> None:
    with (tmp_path / "screen").open("w") as file:
        console = Console(file=file, force_terminal=True, width=80, height=24)
        show(Views(View(time=0.0, problem="first"), View(time=1.0, problem="second")), 0.01, once=False, as_json=False,
             console=console)  # fmt: skip
    drawn = (tmp_path / "screen").read_text()
    assert "first" in drawn
    assert "second" in drawn


def test_a_view_that_is_terminated_gives_the_terminal_back(tmp_path: Path) -> None:
    class Terminated(Views):
        def look(self) -> View:
            os.kill(os.getpid(), signal.SIGTERM)
            return View(time=0.0)

    before = signal.getsignal(signal.SIGTERM)
    with (tmp_path / "screen").open("w") as file:
        console = Console(file=file, force_terminal=True, width=80, height=24)
        show(Terminated(), 0.01, once=False, as_json=False, console=console)
    assert (tmp_path / "screen").read_text().endswith("\x1b[?25h\x1b[?1049l")  # cursor, and what was there before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stream_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        show(Views(View(time=0.0), View(time=1.0)), 0.01, once=False, as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["time"] for line in lines] == [0.0, 1.0]


def test_another_monitor_is_a_source(tmp_path: Path) -> None:
    write_run(tmp_path / "stage2")
    exporter = Exporter(LocalWatcher((), tmp_path, "host"), "127.0.0.1", 0, 60.0)
    exporter.start()
    try:
        found = RemoteWatcher(exporter.address + "/metrics").look()
        assert [one.name for one in found.runs] == ["stage2"]
        assert f"via {exporter.address}" in screen(found, 120, 24)[0]
        with pytest.raises(UsageError, match="--serve"):
            Exporter(LocalWatcher((), tmp_path, "host"), "127.0.0.1", exporter.port, 60.0)
    finally:
        exporter.close()


def test_a_source_that_does_not_answer_is_an_alert() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        found = RemoteWatcher(f"http://127.0.0.1:{nobody.getsockname()[1]}").look()
    assert [alert.kind for alert in found.alerts()] == ["monitor"]
    assert "no view" in screen(found, 80, 24)[1]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no exporter there (SSH-2.0-OpenSSH_9.2"),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", "another program, or another version"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n{", "no exporter there (IncompleteRead"),
    ],
)
def test_what_answers_may_be_no_exporter(answer: bytes, why: str) -> None:
    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        found = RemoteWatcher(f"http://127.0.0.1:{server.getsockname()[1]}").look()
        thread.join()
    assert why in str(found.problem)


def test_an_address_without_a_number() -> None:
    assert "no view" in str(RemoteWatcher("http://server:port").look().problem)


def test_exporters_are_asked_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    exporter = Exporter(LocalWatcher((), tmp_path, "host"), "127.0.0.1", 0, 60.0)
    exporter.start()
    try:
        assert RemoteWatcher(exporter.address).look().problem is None
    finally:
        exporter.close()


def test_a_script_hears_of_a_source_that_does_not_answer() -> None:
    done = CliRunner().invoke(monitor, ["http://127.0.0.1:1", "--once", "--json"])
    assert done.exit_code == ExitCode.CRASHED
    assert "no view" in View.model_validate_json(done.output).problem  # type: ignore[operator]
