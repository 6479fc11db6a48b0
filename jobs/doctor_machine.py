"""What ``castbank doctor`` looks at on the machine it runs on: versions, accelerators, disk, face packs, Ray."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from cluster.checks.finding import Finding, Findings
from jobs.outputs import existing, unwritable

MIN_FREE_GIB = 5.0  # the demo writes 0.1 GiB, a checkpoint of a 1.3B model with optimizer about 16
MIN_MEMORY_GIB = 4.0  # one analysis worker peaks near 1 GiB, one tiny training rank near 1
RAY_TIMEOUT_S = 60.0


def check_python() -> Findings:
    """Interpreter and platform."""
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", "ok", seen)


def check_packages() -> Findings:
    """Every requirement of the distribution is there, and nobody else owns our top-level names."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(r) for r in requires("castbank") or []]
    except PackageNotFoundError:
        yield Finding("packages", "broken", "castbank is not installed", "run make, or pip install -e .")
        return
    wanted = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    bad = []
    for requirement in wanted:
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            bad.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(have, prereleases=True):
            bad.append(f"{requirement.name} {have} is not {requirement.specifier}")
    if bad:
        yield Finding("packages", "broken", "; ".join(bad), "pip install -e . -c constraints.txt")
    else:
        names = ("torch", "deepspeed", "ray", "diffusers", "mlflow")
        yield Finding("packages", "ok", ", ".join(f"{n} {version(n)}" for n in names))
    for name in ("pipeline", "jobs", "data_prep", "cluster"):
        spec = importlib.util.find_spec(name)
        ours = Path(__file__).resolve().parent.parent / name
        if spec is None or Path(str(spec.origin)).resolve().parent != ours:
            where = spec.origin if spec else "nowhere"
            yield Finding(f"import {name}", "broken", f"comes from {where}", "uninstall what owns that name")


def check_machine() -> Findings:
    """Cores and memory."""
    import psutil

    memory_gib = psutil.virtual_memory().available / 2**30
    seen = f"{len(os.sched_getaffinity(0))} cores, {memory_gib:.1f} GiB of memory free"
    if memory_gib < MIN_MEMORY_GIB:
        yield Finding("machine", "warning", seen, f"{MIN_MEMORY_GIB:g} GiB or more; lower run.num_workers")
    else:
        yield Finding("machine", "ok", seen)


def check_accelerators() -> Findings:
    """What torch can compute on."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding("accelerators", "ok", f"{len(names)} x {names[0]}, CUDA {torch.version.cuda}")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "accelerators",
            "broken",
            f"nvidia-smi is here, but torch {torch.__version__} sees no GPU",
            "install a CUDA build of torch that fits the driver (README, Installation)",
        )
    else:
        yield Finding(
            "accelerators",
            "warning",
            "none; torch computes on the CPU",
            "fine for preparation, the tiny family and the demo; the wan and cogvideox families need GPUs",
        )


def check_training_extras() -> Findings:
    """What only some trainings need: torchao, and what DeepSpeed compiles to offload to NVMe."""
    from pipeline.training import nvme

    try:
        yield Finding("quantised base", "ok", f"torchao {version('torchao')}")
    except PackageNotFoundError:
        seen, remedy = "no torchao, optional", "for engine.base_precision: pip install -e '.[quantised]'"
        yield Finding("quantised base", "ok", seen, remedy)
    if found := "; ".join(nvme.problems()):
        yield Finding("nvme offload", "warning", found, "needed for engine.offload_...=nvme alone")
    else:
        seen = "ninja, a compiler and libaio are here; compiled at the first use, in minutes"
        yield Finding("nvme offload", "ok", seen)


def check_disk(folder: Path) -> Findings:
    """The output folder can be written and has room."""
    if problem := unwritable(folder):
        yield Finding("disk", "broken", problem, "choose another --output")
        return
    nearest = existing(folder)
    free_gib = shutil.disk_usage(nearest).free / 2**30
    seen = f"{free_gib:.1f} GiB free at {nearest}"
    if free_gib < MIN_FREE_GIB:
        yield Finding("disk", "warning", seen, f"{MIN_FREE_GIB:g} GiB or more, or another --output")
    else:
        yield Finding("disk", "ok", seen)


def check_faces() -> Findings:
    """Hashes of the installed face packs."""
    from data_prep.faces import packs

    for name, spec in packs.PACKS.items():
        problem = packs.problem(spec)
        licence = "" if spec.commercial else f" (licence: {spec.licence})"
        if not problem:
            yield Finding(f"face pack {name}", "ok", f"{packs.folder(spec)}{licence}")
        elif name == "embedded":
            yield Finding(f"face pack {name}", "broken", problem, f"castbank faces install {name}")
        else:
            yield Finding(f"face pack {name}", "ok", f"not installed, optional{licence}")


def check_ray() -> Findings:
    """A Ray starts here as preparation starts it, or the cluster named by RAY_ADDRESS answers, and runs a task."""
    from data_prep.running.isolation import Failure, Limits, Task, Workers

    where = os.environ.get("RAY_ADDRESS") or "started here"
    try:
        with tempfile.TemporaryDirectory(prefix="castbank-doctor-") as logs, Workers(0) as workers:
            task = Task("doctor", 0)
            (_, result), *_ = workers.run(_node, [task], Limits(1, RAY_TIMEOUT_S), Path(logs))
            problem = result.detail if isinstance(result, Failure) else ""
            seen = f"ran a task on {result}, {workers.num_workers} CPUs, {where}"
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        problem = str(error)
    if problem:
        first = problem.splitlines()[0]
        yield Finding("ray", "broken", first, "check RAY_ADDRESS, or unset it to use this machine alone")
    else:
        yield Finding("ray", "ok", seen)


def _node(_: int) -> str:
    return platform.node()
