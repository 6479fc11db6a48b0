"""What the reports of nodes mean for a job: pure judgement, the same for every scheduler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.checks.finding import Finding, Findings
from cluster.checks.link import LinkReport
from cluster.checks.probe import NodeReport

MAX_SKEW_S = 5.0  # heartbeats and attempts are compared by the clocks of several hosts
MIN_WRITE_MIB_S = 30.0  # a checkpoint of a 1.3B model with optimizer, 16 GiB, takes 9 min at this speed
MIN_SHM_GIB = 1.0  # loading processes hand batches over through /dev/shm


@dataclass(frozen=True)
class Asked:
    """A report and what is known about it from outside: Unix times here before and after the asking, whether what
    the node wrote is seen here, and whether its scheduler says that it has GPUs."""

    report: NodeReport
    before_s: float
    after_s: float
    seen_here: bool
    gpus_promised: bool

    @property
    def skew_s(self) -> float:
        """How far the node's clock is wrong at least; negative where it is behind."""
        at_s = self.report.at_s
        return min(0.0, at_s - self.before_s) + max(0.0, at_s - self.after_s)


def judge(asked: Asked, python: str) -> Findings:
    """Findings about one node: everything that is not fine, or one line that all is.

    Args:
        asked: the node.
        python: version here.
    """
    name = f"node {asked.report.node}"
    problems = [*_software(name, asked, python), *_clock_and_memory(name, asked), *_folder(name, asked)]
    if asked.report.url:
        problems.append(
            Finding(
                name,
                "broken",
                f"MLflow does not answer there: {asked.report.url}",
                "tracking.uri must be an address that nodes reach, and the server must listen on it "
                "(castbank dashboard host=0.0.0.0 allow_remote=true)",
            )
        )
    yield from problems
    if not problems:
        yield Finding(name, "ok", _in_words(asked))


def _software(name: str, asked: Asked, python: str) -> Findings:
    report = asked.report
    if report.python.split(".")[:2] != python.split(".")[:2]:
        remedy = "give jobs an interpreter of the same version; Ray and stored objects need it"
        yield Finding(name, "broken", f"python {report.python}, here {python}", remedy)
    missing = report.missing if report.castbank else ["castbank", *report.missing]
    if missing:
        seen = f"{report.executable} has no {', '.join(missing)}"
        yield Finding(
            name, "broken", seen, "install castbank there, or into an environment that every node sees"
        )
    if asked.gpus_promised and not report.gpus:
        seen = "the scheduler says it has GPUs, nvidia-smi there shows none"
        yield Finding(
            name, "broken", seen, "check the driver on that node; keep jobs away from it until then"
        )


def _clock_and_memory(name: str, asked: Asked) -> Findings:
    if abs(asked.skew_s) > MAX_SKEW_S:
        how = f"its clock is {abs(asked.skew_s):.0f} s or more {'ahead' if asked.skew_s > 0 else 'behind'}"
        yield Finding(name, "warning", how, "set it by chrony or ntpd; heartbeats are judged by it")
    if asked.report.shm_gib < MIN_SHM_GIB:
        seen = f"/dev/shm holds {asked.report.shm_gib:.2f} GiB"
        yield Finding(name, "warning", seen, f"{MIN_SHM_GIB:g} GiB or more for NCCL and loading processes")


def _folder(name: str, asked: Asked) -> Findings:
    folder = asked.report.folder
    if not folder.visible:
        yield Finding(
            name,
            "broken",
            f"the folder given here is not the same there: {folder.problem}",
            "give --folder, and keep jobs, on a file system that every node mounts at the same path",
        )
        return
    if folder.problem:
        remedy = "give the user that jobs run as the right to write there; check quota and space"
        yield Finding(name, "broken", f"the folder cannot be written to: {folder.problem}", remedy)
        return
    if not asked.seen_here:
        seen = "what it wrote into the folder is not seen here after 10 s"
        yield Finding(
            name, "warning", seen, "mount the file system with a shorter attribute cache (NFS: actimeo=3)"
        )
    if not folder.renames:
        remedy = "keep jobs on another file system; checkpoints are committed by a rename"
        yield Finding(name, "broken", "a rename did not replace a file at once", remedy)
    if folder.lock != "held":
        free = folder.lock == "free"
        seen = "a lock held here is free there" if free else f"files cannot be locked: {folder.lock}"
        remedy = "mount with locks (NFS 4, Lustre -o flock); until then do not start two trainings of one run"
        yield Finding(name, "warning", seen, remedy)
    if folder.write_mib_s < MIN_WRITE_MIB_S:
        seen = f"the folder takes {folder.write_mib_s:.0f} MiB/s"
        yield Finding(
            name, "warning", seen, f"{MIN_WRITE_MIB_S:g} MiB/s or more; checkpoints are written there"
        )


def _in_words(asked: Asked) -> str:
    report = asked.report
    gpus = f"{len(report.gpus)} x {report.gpus[0]}, driver {report.driver}" if report.gpus else "no GPU"
    return (
        f"python {report.python}, castbank {report.castbank}, {report.cores} cores, {report.memory_gib:.0f} GiB, "
        f"{gpus}, folder {report.folder.write_mib_s:.0f} MiB/s, locks and renames work, "
        f"clock within {max(abs(asked.skew_s), asked.after_s - asked.before_s):.1f} s"
    )


def compare(reports: Sequence[NodeReport]) -> Findings:
    """What differs between nodes that should be alike."""
    for what in ("driver", "castbank", "executable"):
        hosts: dict[str, list[str]] = defaultdict(list)
        for report in reports:
            if value := getattr(report, what):
                hosts[value].append(report.node)
        if len(hosts) > 1:
            seen = "; ".join(f"{value} on {', '.join(nodes)}" for value, nodes in sorted(hosts.items()))
            yield Finding(f"{what} of nodes", "warning", seen, "make nodes of one training alike")


def judge_link(reports: Sequence[LinkReport], nodes: Sequence[NodeReport]) -> Findings:
    """Whether two nodes can train together. nodes: both, the one of rank 0 first."""
    name = f"link {nodes[0].node} - {nodes[1].node}"
    failed = sorted((r for r in reports if r.problem), key=lambda r: (STAGES.index(r.stage), -r.rank))
    if failed or len(reports) < 2:
        stage = failed[0].stage if failed else ""
        why = f"{failed[0].host}: {failed[0].problem}" if failed else "one of them did not report"
        yield Finding(name, "broken", f"{STAGES_IN_WORDS[stage]}: {why}", _link_remedy(stage, nodes))
        return
    first = min(reports, key=lambda r: r.rank)
    nccl = f", NCCL {first.nccl_mib_s:.0f} MiB/s" if first.nccl_mib_s else ""
    through = first.interface or first.via
    yield Finding(name, "ok", f"sums of 16 MiB through {through}: gloo {first.gloo_mib_s:.0f} MiB/s{nccl}")


STAGES = ("name", "port", "torch", "gloo", "nccl", "")
STAGES_IN_WORDS = {
    "name": "the first node's name is not known on the other",
    "port": "a port of the first node is not reached from the other",
    "torch": "torch cannot be imported",
    "gloo": "they meet, but gloo cannot compute",
    "nccl": "gloo works, NCCL does not",
    "": "they did not meet",
}


def _link_remedy(stage: str, nodes: Sequence[NodeReport]) -> str:
    loopback = [node for node in nodes if node.address.startswith("127.")]
    if stage in ("port", "gloo", "") and loopback:
        node = loopback[0]
        return (
            f"on {node.node} its own name stands for {node.address}: correct /etc/hosts, or set "
            "environment.GLOO_SOCKET_IFNAME in the job file to the network interface, such as eth0"
        )
    return {
        "name": "put the nodes' names into DNS or /etc/hosts",
        "torch": "install castbank there, or into an environment that every node sees",
        "nccl": "set environment.NCCL_SOCKET_IFNAME, and NCCL_DEBUG=INFO in the job file says more",
    }.get(stage, "open the network between nodes: a training needs free ports above 1024 in both directions")
