"""Whatever a user types reaches the worker byte for byte: through our scripts, torchrun, and the line that is shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from configs.plan import make_plan
from configs.plan_schema import DeviceFacts
from configs.recipes import load_recipe
from launcher.own_process import ROOT, quoted, shell_line, shown
from launcher.torchrun import Nodes, torchrun_command

PLAN = make_plan(load_recipe("synthetic/bevnext-tiny"), samples=24, devices=DeviceFacts(cpu_cores=2))
TELL = "#!{python}\nimport os, sys\nos.write(1, b''.join(os.fsencode(a) + b'\\0' for a in sys.argv[1:]))\n"
READ_BY_A_SCRIPT = ("-h", "--help", "--gpu", "--force-config", "--torch", "--python")

# anything but NUL; lone surrogates stand for bytes that are no UTF-8
words = st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",))
    | st.sampled_from(list("'\"\\$`!*?~#;&|<>(){}[] \t\n\r\x1b\x7f-="))
    | st.integers(0xDC80, 0xDCFF).map(chr),
    max_size=12,
).filter(lambda word: os.fsdecode(os.fsencode(word)) == word)
"""A sequence of such stand-ins that happens to be UTF-8 comes back as the character itself."""
awkward = [
    "",
    " ",
    "a b",
    "it's",
    '"',
    "\\",
    "\\n",
    "\n",
    "a\r\nb",
    "$HOME",
    "$(id)",
    "`id`",
    "*",
    "~",
    "ü",
    "日本",
    "😀",
]
awkward += ["\udcff", "\x1b[31m", "\u202e", "--", "-x", "--set=a=b", "!", "e\u0301"]


def read_back(command: list[str]) -> list[str]:
    """The NUL-terminated arguments that a process printed."""
    done = subprocess.run(command, capture_output=True, timeout=240, check=True)
    return [os.fsdecode(part) for part in done.stdout.split(b"\0")[:-1]]


@settings(max_examples=250, deadline=None)
@given(arguments=st.lists(words, min_size=4, max_size=8))
@example(arguments=awkward)
def test_torchrun_hands_them_to_the_worker(arguments: list[str]) -> None:
    """At least 1,000 arguments, through torchrun's own parser."""
    from torch.distributed.run import config_from_args, parse_args

    command = torchrun_command(PLAN, Nodes(), log_dir=Path("/a b"), trainer="training.x", arguments=arguments)
    _, _, worker = config_from_args(parse_args(command[3:]))
    assert worker == ["-u", "-m", "training.x", *arguments]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(arguments=st.lists(words, min_size=40, max_size=60))
@example(arguments=awkward)
def test_a_shell_reads_the_shown_line_back(arguments: list[str]) -> None:
    """At least 1,000 arguments, many to one shell."""
    line = quoted(arguments)
    assert line.isprintable()
    assert read_back(["bash", "-c", f"printf '%s\\0' {line}"]) == arguments
    assert shown(arguments) == f"bevnext-sam2 {line}"


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(arguments=st.lists(words, min_size=1, max_size=40), value=words)
@example(arguments=awkward, value="a 'b'\n")
def test_the_shown_command_line_starts_the_same_process(arguments: list[str], value: str) -> None:
    tell = "import os, sys; os.write(1, b''.join(os.fsencode(a) + b'\\0' for a in [os.environ['X'], *sys.argv[1:]]))"
    line = shell_line([sys.executable, "-S", "-c", tell, *arguments], {"X": value})
    assert read_back(["bash", "-c", line]) == [value, *arguments]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts in a folder with a space in its name, and an environment whose command tells its arguments."""
    root = tmp_path_factory.mktemp("a checkout")
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "scripts" / "set_up.sh").write_text("#!/bin/sh\nexit 0\n")
    command = root / ".venv" / "bin" / "bevnext-sam2"
    command.parent.mkdir(parents=True)
    command.write_text(TELL.format(python=f"{sys.executable} -S"))
    command.chmod(0o755)
    return root


@pytest.mark.parametrize(
    ("script", "before"),
    [
        ("run.sh", ["train"]),
        ("launch_distributed_training.sh", ["train"]),
        ("train_gpu.sh", ["train", "--gpus", "0"]),
    ],
)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(arguments=st.lists(words.filter(lambda word: word not in READ_BY_A_SCRIPT), min_size=30, max_size=40))
@example(arguments=awkward)
def test_our_scripts_pass_them_on(script: str, before: list[str], arguments: list[str], checkout: Path) -> None:
    mode = ["train"] if script == "run.sh" else []
    assert read_back([str(checkout / "scripts" / script), *mode, *arguments]) == [*before, *arguments]
