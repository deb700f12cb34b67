"""All checks, in the order of a report: machine, GPUs, software, data, containers."""

from __future__ import annotations

import locale
import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from launcher.dataset import DataChoice
from launcher.doctor import containers, gpus, machine, project
from launcher.doctor.finding import Finding
from launcher.doctor.torch_probe import probe_torch
from monitoring.devices import VISIBLE, survey_gpus
from monitoring.processor import cpu_quota, free_shared_memory, processor_name, usable_memory


def diagnose(data: DataChoice, output_dir: Path, *, quick: bool) -> Iterator[Finding]:
    """Look at everything, one finding at a time.

    Args:
        quick: leave out what takes seconds: importing torch, asking Docker.
    """
    yield machine.check_python(sys.version_info[:3])
    yield machine.check_locale(locale.getpreferredencoding(False))
    yield machine.check_processor(len(os.sched_getaffinity(0)), cpu_quota(), processor_name())
    yield machine.check_memory(usable_memory())
    yield machine.check_shared_memory(free_shared_memory())
    yield machine.check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield machine.check_folder("outputs", output_dir, needs_writing=True)
    yield machine.check_folder("data folder", data.root, needs_writing=data.made_on_demand)
    yield machine.check_host_name(socket.gethostname(), machine.addresses_of(socket.gethostname()))
    survey = survey_gpus()
    yield gpus.check_driver(survey, gpus.has_device_files())
    yield from gpus.check_gpus(survey, os.environ.get(VISIBLE))
    yield project.check_packages(project.package_files())
    yield project.check_versions(project.lock_files(), project.installed_versions())
    yield project.check_data(data)
    if quick:
        return
    yield from gpus.check_torch(probe_torch(), survey)
    installed = containers.docker_installed()
    yield containers.check_docker(containers.ask_program, installed)
    compose = containers.check_compose(containers.ask_program, installed)
    if compose is not None:
        yield compose
