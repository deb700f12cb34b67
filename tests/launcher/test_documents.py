"""Every command line of the documentation is read by the parser that it is meant for; what can run here is run, dry."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from launcher.main import command_line, run
from launcher.own_process import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "DOCKER.md", "MULTI_GPU_TRAINING.md")),
    *sorted(ROOT.glob("docs/*.md")),
]
FENCED = re.compile(r"^```(?:bash|sh|shell|console)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
TRAINERS = ("launch_docker_multi_gpu.sh", "launch_distributed_training.sh", "train_ddp_docker.sh", "train_gpu.sh")
OF_RUN = {
    **dict.fromkeys(("train-multi-gpu", "train-s3", "train"), "train"),
    **{"validate": "eval", "inference": "infer"},
}
"""Mode of run.sh -> the command whose options it takes; all other modes that are commands have the name of theirs."""
OWN_MODES = ("test", "test-model", "dev", "tensorboard", "shell", "build-container", "build-fast", "build-full")
ELSEWHERE = (
    "--data-root",
    "--data-path",
    "--num-gpus",
    "--gpus",
    "--gpu",
    "--backend",
    "--nnodes",
    "--resume",
    "--docker",
)
"""Options of lines that need a data set, devices or a run that are not here."""


def lines_of(page: Path) -> Iterator[list[str]]:
    """The command lines in the shell blocks of a page, as words; variables set before the program are left out."""
    for block in FENCED.finditer(page.read_text(encoding="utf-8")):
        for line in block["text"].replace("\\\n", " ").splitlines():
            for part in re.split(r"\s(?:&&|\|)\s", line.removeprefix("$ ")):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
                    words.pop(0)
                if words:
                    yield words


FILES_OF_THE_READER = (".txt", ".safetensors")
"""Files that some options want to be there when they are parsed."""

LINES = [(page.name, words) for page in PAGES if page.is_file() for words in lines_of(page)]


def starting_with(*programs: str) -> list[tuple[str, list[str]]]:
    return [(page, words) for page, words in LINES if words[0].removeprefix("./") in programs or words[0] in programs]


def named(line: object) -> str:
    return line if isinstance(line, str) else shlex.join(line)[:70]  # type: ignore[call-overload]


def parse(words: list[str]) -> None:
    """As the real command reads them; raises what click raises."""
    command: click.Command = command_line
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    try:
        command.make_context("documented", list(words))
    except click.exceptions.Exit as done:
        assert done.exit_code == 0  # --help, --version


OWN_LINES = [(page, words) for page, words in starting_with("bevnext-sam2") if words[1:]]  # not those for completion


@pytest.mark.parametrize(("page", "words"), OWN_LINES, ids=named)
def test_own_commands_parse(page: str, words: list[str], in_empty_folder: Path) -> None:
    for word in words:
        if Path(word).suffix in FILES_OF_THE_READER and not Path(word).is_absolute():
            (in_empty_folder / word).parent.mkdir(parents=True, exist_ok=True)
            (in_empty_folder / word).touch()
    parse(words[1:])


TRAINER_LINES = [(page, words) for page, words in starting_with("torchrun", "python") if "train_bevnext" in str(words)]


@pytest.mark.parametrize(("page", "words"), TRAINER_LINES, ids=named)
def test_trainers_started_by_hand_parse(page: str, words: list[str]) -> None:
    """torchrun's own parser finds the program, and the program's its options."""
    from torch.distributed.run import parse_args

    if words[0] == "torchrun":
        read = parse_args(words[1:])
        assert (ROOT / read.training_script).is_file()
        module, options = Path(read.training_script).with_suffix(""), read.training_script_args
    else:
        assert words[1] == "-m"
        module, options = Path(words[2].replace(".", "/")), words[3:]
    program = importlib.import_module(".".join(module.parts))
    program.main.make_context(module.name, list(options))


SCRIPT_LINES = [(page, words) for page, words in LINES if words[0].removeprefix("./").startswith("scripts/")]


@pytest.mark.parametrize(("page", "words"), SCRIPT_LINES, ids=named)
def test_scripts_are_there_and_their_options_parse(page: str, words: list[str]) -> None:
    script = ROOT / words[0]
    assert os.access(script, os.X_OK), f"{page}: {words[0]}"
    arguments = [word for word in words[1:] if word not in ("--native", "--docker", "--dry-run")]
    if script.name in TRAINERS:
        wide = ["--gpus" if script.name == "train_gpu.sh" and word == "--gpu" else word for word in arguments]
        parse(["train", *wide])
    if script.name != "run.sh":
        return
    while arguments and arguments[0] in ("--torch", "--python"):
        arguments = arguments[2:]
    mode = arguments[0]
    if mode == "validate-nuscenes":
        parse(["data", "check", *arguments[1:]])
    elif mode not in OWN_MODES and mode != "train-download":
        parse([OF_RUN.get(mode, mode), *arguments[1:]])


def needs_an_environment(words: list[str]) -> bool:
    """Lines that plan a training set up the environment first, even dry."""
    return Path(words[0]).name in (*TRAINERS, "set_up.sh", "check.sh", "lock.sh") or "train" in words[:4]


DRY = [(page, words) for page, words in SCRIPT_LINES if words[0].endswith(".sh") and not needs_an_environment(words)]
REFUSED_HERE = "no such folder"
"""What a script says where only the data set of the example is missing."""


@pytest.mark.parametrize(("page", "words"), DRY, ids=named)
def test_script_lines_run_dry(page: str, words: list[str], in_empty_folder: Path) -> None:
    script = ROOT / words[0]
    if "--dry-run" not in script.read_text() or script.name == "check-dataset.sh":
        pytest.skip("it has no --dry-run, since it changes nothing")
    before = ["--dry-run"] if script.name == "run.sh" else []
    after = [] if before or "--" in words else ["--dry-run"]
    line = [str(script), *before, *words[1:], *after]
    if "--" in words:
        line.insert(line.index("--"), "--dry-run")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BEVNEXT_SAM2_")}
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=120, cwd=in_empty_folder, env=environment, check=False
    )
    assert done.returncode == 0 or REFUSED_HERE in done.stderr, done.stderr
    assert list(in_empty_folder.iterdir()) == []


HERE = [
    (page, words)
    for page, words in starting_with("bevnext-sam2")
    if words[1:2] in (["plan"], ["train"]) and not any(word.split("=")[0] in ELSEWHERE for word in words)
]


@pytest.mark.parametrize(("page", "words"), HERE, ids=named)
def test_plans_that_can_be_made_here_are_made(page: str, words: list[str], in_empty_folder: Path, root: Path) -> None:
    (in_empty_folder / "data").mkdir()
    (in_empty_folder / "data" / "synthetic").symlink_to(root)
    cpu = [] if "--device" in words or "--num-processes" in words else ["--no-gpu"]
    dry = ["--dry-run"] if words[1] == "train" and "--dry-run" not in words else []
    assert run([*words[1:], *cpu, *dry]) == 0
    assert [path.name for path in in_empty_folder.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("page", "words"), [line for line in starting_with("docker") if line[1][1] == "compose"], ids=named
)
def test_compose_lines_name_services(page: str, words: list[str]) -> None:
    services = {
        name
        for file in (ROOT / "compose").glob("*.yaml")
        for name in (yaml.load(file.read_text(), _AnyTag).get("services") or {})
    }
    verbs = ("up", "run", "stop", "build", "logs", "down", "config", "ps")
    verb = next(word for word in words[2:] if word in verbs)
    rest = [word for word in words[words.index(verb) + 1 :] if not word.startswith("-")]
    if verb in ("up", "run", "stop", "build", "logs") and rest:
        assert rest[0] in services, f"{page}: {rest[0]}"


class _AnyTag(yaml.SafeLoader):
    """Reads Compose's own tags as nothing."""


_AnyTag.add_multi_constructor("!", lambda loader, suffix, node: None)


def test_the_pages_hold_command_lines() -> None:
    assert len(LINES) > 40
