"""A `docker` that writes down how it is called and plays an engine with one container.

FAKE_DOCKER names a folder: `calls` gets a JSON list a line; `exit_code` is what the container ends with (it runs until
a signal where there is none); `broken` lists subcommands that fail; the container is there while `container` is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

HERE = Path(os.environ["FAKE_DOCKER"])
arguments = sys.argv[1:]


def read(name: str, default: str = "") -> str:
    return (HERE / name).read_text().strip() if (HERE / name).exists() else default


def finish(code: int = 0, out: str = "", error: str = "") -> None:
    print(out, end="", flush=True)
    print(error, end="", file=sys.stderr, flush=True)
    sys.exit(code)


with (HERE / "calls").open("a") as calls:
    calls.write(json.dumps(arguments) + "\n")
subcommand = " ".join(arguments[:2]) if arguments[0] in ("compose", "image", "container") else arguments[0]
if arguments[:2] == ["compose", "--project-directory"]:
    subcommand = "run"
if subcommand in read("broken").splitlines():
    finish(1, error=read("error", "no reason"))
if subcommand == "run":
    (HERE / "container").write_text(arguments[arguments.index("--name") + 1])
elif subcommand == "container inspect":
    if not (HERE / "container").exists():
        finish(1, error="no such container")
    if "json" not in arguments[3]:
        finish(out="running\n")
    code = int(read("exit_code", "0"))
    finish(out=json.dumps({"ExitCode": code, "OOMKilled": read("oom") == "yes", "Error": "", "Running": False}))
elif subcommand == "ps":
    finish(out=read("others"))
elif subcommand == "logs":
    print("a step", flush=True)
    print("a warning", file=sys.stderr, flush=True)
elif subcommand == "wait":
    while not (HERE / "exit_code").exists():
        time.sleep(0.05)
elif subcommand == "kill":
    number = arguments[arguments.index("--signal") + 1]
    if number == "SIGKILL" or not (HERE / "deaf").exists():
        (HERE / "exit_code").write_text("137" if number == "SIGKILL" else "75")
elif subcommand == "rm":
    (HERE / "container").unlink(missing_ok=True)
