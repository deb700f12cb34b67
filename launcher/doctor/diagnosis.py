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
from launcher.doctor import containers, gpus, machine, project, settings
from launcher.doctor.finding import Finding, Level
from launcher.doctor.torch_probe import probe_torch
from launcher.options import DEFAULT_IMAGE
from launcher.own_process import ROOT
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
    yield project.check_links(data.root)
    yield settings.check_environment(os.environ)
    yield settings.check_proxy(os.environ)
    if quick:
        return
    yield from gpus.check_torch(probe_torch(), survey)
    installed = containers.docker_installed()
    yield containers.check_docker(containers.ask_program, installed)
    compose = containers.check_compose(containers.ask_program, installed)
    answers = [
        compose,
        containers.check_docker_disk(containers.ask_program, installed),
        containers.check_image(containers.ask_program, installed, DEFAULT_IMAGE),
        toolkit := containers.check_toolkit(
            containers.ask_program, installed, len(survey.gpus), containers.cdi_specifications()
        ),
    ]
    yield from (answer for answer in answers if answer is not None)
    if installed:
        chosen = settings.read_settings(ROOT / ".env", os.environ)
        yield settings.check_device(chosen, toolkit is not None and toolkit.level is Level.OK)
        yield settings.check_owner(output_dir, chosen, os.getuid())
        yield from settings.check_ports(chosen)
