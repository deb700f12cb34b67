"""Kubernetes: manifests of the same run as a Kubeflow TrainJob and as a plain indexed Job.

The plain Job knows our exit codes: a pod that was stopped and has saved is started again without counting as a
failure; a wrong option or data set ends the job at once. A TrainJob restarts as its runtime says.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from configs.errors import ExitCode, UsageError
from launcher.backends.job import Job

Manifest = dict[str, Any]
PORT: Final = 29400
RUNTIME: Final = "torch-distributed"
"""The cluster runtime that Kubeflow Trainer brings along; its pods' container is called `node`."""
MANAGER: Final = "bevnext-sam2"
"""Owner of our patches to the runtime."""
HOPELESS: Final = (ExitCode.BAD_USAGE, ExitCode.BAD_DATA, ExitCode.NO_PROGRESS)
FAILURES: Final = 3
"""Pods that may crash before the job is given up."""
LONGEST_NAME: Final = 50
"""Of a job: the names of its pods are longer and may have 63 characters."""


class _Plain(yaml.SafeDumper):
    """Writes out what is there twice, without YAML's references."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        del data
        return True


def train_job(job: Job) -> list[Manifest]:
    """The run as a TrainJob of Kubeflow Trainer 2.2 or later."""
    meet = ["--rdzv-endpoint=$(PET_MASTER_ADDR):$(PET_MASTER_PORT)"] if job.nodes > 1 else []
    trainer = {
        "image": job.request.image,
        "command": ["bevnext-sam2"],
        "args": [*map(_literal, job.arguments), *meet],
        "numNodes": job.nodes,
        "resourcesPerNode": _resources(job),
        "env": _environment(),
    }
    container = {"name": "node", "volumeMounts": _mounts(job), "securityContext": _container_security()}
    pod = {**_pod(job), "containers": [container]}
    patch = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    return [
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": _metadata(job),
            "spec": {
                "runtimeRef": {"name": RUNTIME},
                "trainer": trainer,
                "runtimePatches": [
                    {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [patch]}}}}
                ],
            },
        }
    ]


def plain_job(job: Job) -> list[Manifest]:
    """The run as a Job of Kubernetes itself; several nodes get a service by which they find each other."""
    metadata, several = _metadata(job), job.nodes > 1
    name = metadata["name"]
    meet = [f"--rdzv-endpoint={name}-0.{name}:{PORT}"] if several else []
    container = {
        "name": "trainer",
        "image": job.request.image,
        "command": ["bevnext-sam2"],
        "args": [*map(_literal, job.arguments), *meet],
        "env": _environment(),
        "resources": _resources(job),
        "volumeMounts": _mounts(job),
        "securityContext": _container_security(),
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        **({"subdomain": name} if several else {}),
        **_pod(job),
        "containers": [container],
    }
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": job.nodes,
            "parallelism": job.nodes,
            "backoffLimit": FAILURES * job.nodes,
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod},
        },
    }
    return [_service(metadata), manifest] if several else [manifest]


def as_yaml(manifests: list[Manifest]) -> str:
    """The manifests as one file for `kubectl apply -f`."""
    return yaml.dump_all(manifests, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


def job_name(run: str) -> str:
    """A name that Kubernetes takes: lower-case letters, digits and dashes.

    Raises:
        UsageError: nothing of the run's name can be kept.
    """
    name = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")[:LONGEST_NAME].rstrip("-")
    if not name or not name[0].isalpha():
        raise UsageError(
            f"--backend kubernetes: no job can be called after the run {run!r}", fix="use --run with a plain name"
        )
    return name


def _metadata(job: Job) -> Manifest:
    name = job_name(job.run.choices.run_dir.name)
    labels = {"app.kubernetes.io/name": "bevnext-sam2", "app.kubernetes.io/instance": name}
    namespace = {"namespace": job.request.namespace} if job.request.namespace else {}
    return {"name": name, **namespace, "labels": labels}


def _service(metadata: Manifest) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": metadata["name"]},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }


def _failure_rules() -> list[Manifest]:
    """In order: hopeless failures end the job; stopped and saved, or evicted, is no failure; the rest is counted."""
    hopeless = {"operator": "In", "values": sorted(map(int, HOPELESS))}
    saved = {"operator": "In", "values": [int(ExitCode.PREEMPTED)]}
    return [
        {"action": "FailJob", "onExitCodes": hopeless},
        {"action": "Ignore", "onExitCodes": saved},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]


def _pod(job: Job) -> Manifest:
    """What both kinds of job have in common."""
    return {
        "terminationGracePeriodSeconds": job.stop_seconds,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": _volumes(job),
    }


def _resources(job: Job) -> Manifest:
    limits = {"nvidia.com/gpu": job.gpus_per_node} if job.gpus_per_node else {"cpu": str(job.cpus_per_node)}
    return {"requests": {"cpu": str(job.cpus_per_node)}, "limits": limits}


def _environment() -> list[Manifest]:
    return [{"name": "HOME", "value": "/tmp"}]


def _container_security() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _volumes(job: Job) -> list[Manifest]:
    shared = {"medium": "Memory", "sizeLimit": f"{job.shared_memory_bytes >> 20}Mi"}
    volumes: list[Manifest] = [{"name": "shared-memory", "emptyDir": shared}, {"name": "tmp", "emptyDir": {}}]
    if job.request.data_claim:
        claim = {"claimName": job.request.data_claim, "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": claim})
    if job.request.output_claim:
        volumes.append({"name": "outputs", "persistentVolumeClaim": {"claimName": job.request.output_claim}})
    return volumes


def _mounts(job: Job) -> list[Manifest]:
    choices = job.run.choices
    mounts: list[Manifest] = [
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if job.request.data_claim:
        mounts.append({"name": "data", "mountPath": str(choices.data.root), "readOnly": True})
    if job.request.output_claim:
        mounts.append({"name": "outputs", "mountPath": str(choices.run_dir.parent)})
    return mounts


def _literal(argument: str) -> str:
    """An argument in which Kubernetes, which replaces `$(NAME)` and reads `$$` as `$`, changes nothing."""
    return argument.replace("$", "$$")
