"""``castbank doctor``: looks where jobs are to run, and says of each finding whether it is fine and what to do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cluster.checks.finding import Finding, Findings
from cluster.checks.plan import Plan
from cluster.spec import KubernetesOptions, RayOptions, SlurmOptions
from jobs import config as configs
from jobs import doctor_machine as machine
from jobs import knobs
from jobs.doctor_stores import check_s3, check_tracking, health

SUMMARY = """Check where jobs are to run: this machine, or with --on a cluster and its nodes.

Each finding says what was seen and, where it is not fine, what to do. Exit code 0 when nothing is broken,
2 when something is. On a cluster a few nodes are asked by a short job each: Python, castbank, GPUs, clock, the
shared folder (seen, written, renamed, locked), MLflow from there; then two of them compute together."""

EXAMPLE = (
    "castbank doctor --on slurm --folder /shared/runs --tracking-uri http://head:5000 slurm.partition=gpu"
)
MARKS = {"ok": "ok      ", "warning": "warning ", "broken": "BROKEN  "}
Check = Callable[[], Findings]


@dataclass(frozen=True)
class DoctorConfig:
    """The places, as job files describe them; only the one of --on is asked."""

    slurm: SlurmOptions = field(default_factory=SlurmOptions)
    ray: RayOptions = field(default_factory=RayOptions)
    kubernetes: KubernetesOptions = field(default_factory=KubernetesOptions)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what to check."""
    places = ("local", "slurm", "ray", "kubernetes")
    parser.add_argument(
        "--on", default="local", choices=places, help="where jobs are to run (default: local)"
    )
    parser.add_argument("--output", default=".", type=Path, help="folder that results go to (default: here)")
    parser.add_argument(
        "--folder", type=Path, help="folder of jobs that nodes share (default: that of --output)"
    )
    parser.add_argument(
        "--tracking-uri", default="", help="MLflow server or sqlite:/// store (default: sqlite)"
    )
    parser.add_argument("--bucket", default="", metavar="s3://BUCKET/PREFIX", help="try its rights")
    parser.add_argument("--s3-endpoint", default="", metavar="URL", help="of a store that is not Amazon's")
    plan = Plan()
    parser.add_argument("--nodes", default=plan.num_nodes, type=int, help=f"nodes tried ({plan.num_nodes})")
    parser.add_argument(
        "--wait-s", default=plan.wait_s, type=float, help=f"for a node to be free ({plan.wait_s:g})"
    )
    parser.add_argument(
        "--python", default="", help="interpreter of the nodes (default: the one of castbank)"
    )
    knobs.add_arguments(parser, DoctorConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Print every finding; 0 when none is broken."""
    config = configs.load(DoctorConfig, args.config, args.overrides)
    findings: list[Finding] = []
    for check in checks(args, config):
        for finding in check():
            findings.append(finding)
            sys.stdout.write(f"{MARKS[finding.state]}{finding.name}: {finding.seen}\n")
            if finding.remedy:
                sys.stdout.write(f"          -> {finding.remedy}\n")
            sys.stdout.flush()
    broken = sum(f.state == "broken" for f in findings)
    warnings = sum(f.state == "warning" for f in findings)
    sys.stdout.write(f"{len(findings)} checks: {broken} broken, {warnings} to know about\n")
    return 2 if broken else 0


def checks(args: argparse.Namespace, config: DoctorConfig) -> list[Check]:
    """What is looked at, in the order in which it is said; a cluster's own machines are not judged by this one."""
    here: list[Check] = [machine.check_python, machine.check_packages]
    if args.on == "local":
        here += [machine.check_machine, machine.check_accelerators, machine.check_training_extras]
    here.append(lambda: machine.check_disk(args.output))
    if args.on == "local":
        here += [machine.check_faces, machine.check_ray]
    here.append(lambda: check_tracking(args.tracking_uri, args.on != "local"))
    if args.bucket:
        here.append(lambda: check_s3(args.bucket, args.s3_endpoint))
    if args.on == "local" and args.folder:
        here.append(lambda: check_folder(args.folder))
    elif args.on != "local":
        here.append(lambda: check_place(args, config))
    return here


def check_place(args: argparse.Namespace, config: DoctorConfig) -> Findings:
    """The scheduler and its nodes."""
    from cluster.checks import kubernetes, ray_cluster, slurm
    from cluster.checks.trial import trial

    if args.on == "kubernetes":
        yield from kubernetes.check(config.kubernetes)
        return
    plan = Plan(args.nodes, args.wait_s, health(args.tracking_uri), args.python)
    shared = args.folder or args.output
    try:
        with trial(shared) as tried:
            if args.on == "slurm":
                yield from slurm.check(plan, config.slurm, tried)
            else:
                yield from ray_cluster.check(plan, config.ray, tried)
    except OSError as error:
        yield not_a_folder(shared, error)


def check_folder(folder: Path) -> Findings:
    """How a folder for jobs behaves, as seen from a process of this machine."""
    import platform
    import time

    from cluster.checks import nodes, probe
    from cluster.checks.trial import trial

    try:
        with trial(folder) as tried:
            before_s = time.time()
            report = probe.look(probe.Order(str(tried.folder), tried.token))
            asked = nodes.Asked(report, before_s, time.time(), tried.sees(report.host), False)
            yield from nodes.judge(asked, platform.python_version())
    except OSError as error:
        yield not_a_folder(folder, error)


def not_a_folder(folder: Path, error: OSError) -> Finding:
    """That jobs cannot be kept in a folder."""
    remedy = "give --folder, an existing folder that you may write to and every node sees"
    return Finding("folder", "broken", f"{folder.absolute()}: {error.strerror or error}", remedy)
