"""What runs in pods, as plain processes: jobs of one pod, arrays, probes, hooks, and what a pod is not allowed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import array_part
from cluster.array_part import part_folder
from cluster.job_folder import JobFolder
from cluster.kubernetes.pods import HOME, entrypoint
from cluster.spec import Resources, Retry, Stopping
from tests.cluster.kubernetes_pods import FOREVER, ROOT, outcome, pods_of, training
from tests.waiting import until


@pytest.mark.parametrize(
    ("code", "state", "pod_code"), [(0, "succeeded", 0), (2, "failed", 2), (9, "failed", 70)]
)
def test_a_job_of_one_pod_runs_the_supervisor(tmp_path: Path, code: int, state: str, pod_code: int) -> None:
    spec = training(
        tmp_path / "run",
        f"print('rank', rank, 'of', os.environ['WORLD_SIZE'], os.environ['MASTER_ADDR'])\nsys.exit({code})",
        resources=Resources(processes_per_node=2),
        retry=Retry(max_failures=2, backoff_s=0),
    )
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        assert pods.codes() == {0: pod_code}
        output = pods.output(0)
    assert outcome(spec).state == state
    assert len(JobFolder(spec.folder).attempts()) == (2 if code == 9 else 1)
    assert "rank 1 of 2 127.0.0.1" in output and f"castbank job {spec.id}" in output
    assert f"castbank job {spec.id}" in JobFolder(spec.folder).log.read_text()


def test_the_parts_of_an_array_end_as_one(tmp_path: Path) -> None:
    code = (
        "import os, sys; print('part', sys.argv[1]); sys.exit(2 if sys.argv[1] == os.environ['BAD'] else 0)"
    )
    spec = training(
        tmp_path / "run", "", ranks=False, array=3, resources=Resources(), environment={"BAD": "3/3"}
    )
    spec = replace(spec, command=("python3", "-c", code, "{part}"))
    place = JobFolder(spec.folder)
    place.write_spec(spec)
    with pods_of(spec, tmp_path) as pods:
        for index in range(3):
            pods.start(index)
        assert pods.codes() == {0: 0, 1: 0, 2: 2}
        output = pods.output(1)
        assert "part 2/3" in output
        assert outcome(spec).state == "failed" and "part 3" in outcome(spec).reason
        place.renew()  # requeue, after the input was mended
        array_part.renew(spec)
        place.write_spec(replace(spec, environment={"BAD": ""}))
        for index in range(3):
            pods.start(index)
        assert pods.codes() == {0: 0, 1: 0, 2: 0}
    assert outcome(spec).state == "succeeded"
    assert [len(JobFolder(part_folder(spec.folder, number)).attempts()) for number in (1, 2, 3)] == [1, 1, 2]
    assert place.rank_log(1).read_text() == "part 2/3\n"


def test_an_init_container_waits_for_earlier_jobs(tmp_path: Path) -> None:
    earlier = JobFolder(tmp_path / "earlier")
    spec = training(tmp_path / "run", "", after=(earlier.folder,))
    with pods_of(spec, tmp_path) as pods:
        waiting = pods.start(0, "wait")
        assert waiting.poll() is None
        earlier.write_outcome("succeeded", 0, "")
        assert waiting.wait(30) == 0
        earlier.write_outcome("failed", 1, "no clips")
        vain = pods.start(0, "wait")
        assert vain.wait(30) == 2
        assert "has failed" in pods.output(0)
    assert outcome(spec).state == "failed"


def test_a_probe_sees_a_rank_that_does_not_move(tmp_path: Path) -> None:
    spec = training(tmp_path / "run", "", stopping=Stopping(hang_s=60))
    place, mark = JobFolder(spec.folder), tmp_path / "tmp-1" / "castbank-started"

    def beat(rank: int, age_s: float, phase: str = "train") -> None:
        at_s = time.time() - age_s
        words = {"rank": rank, "host": "h", "pid": 1, "token": "", "phase": phase, "step": 1}
        place.heartbeats.mkdir(exist_ok=True)
        text = json.dumps({**words, "step_at_s": at_s, "alive_at_s": at_s})
        (place.heartbeats / f"rank-{rank}.json").write_text(text)

    with pods_of(spec, tmp_path) as pods:

        def alive() -> int:
            return pods.start(1, "alive").wait(30)

        assert alive() == 0  # it waits for the other pod, and has begun nothing
        mark.touch()
        assert alive() == 0  # it has only begun
        os.utime(mark, (1, 1))
        assert alive() == 1  # a rank that has never been heard of
        beat(0, age_s=900)
        beat(1, age_s=5)
        assert alive() == 0  # rank 0 is another pod's
        beat(1, age_s=900)
        assert alive() == 1
        beat(1, age_s=900, phase="done")
        assert alive() == 0


def test_a_ray_head_asks_its_job_to_stop_and_waits(tmp_path: Path) -> None:
    spec = training(tmp_path / "run", FOREVER, resources=Resources())
    with pods_of(spec, tmp_path) as pods:
        pods.start(0)
        until((spec.folder / "up-0").exists)
        stopping = pods.start(0, "stop")
        assert stopping.wait(30) == 0
        assert outcome(spec).state == "preempted"
        assert pods.codes() == {0: 75}


def test_the_ray_entrypoint_is_read_by_a_shell_as_it_was_meant(tmp_path: Path) -> None:
    folder = tmp_path / "a 'b' $HOME"
    spec = training(folder, "")
    said = subprocess.run(
        ["sh", "-c", entrypoint(spec).replace("python3", "printf '%s\\n'", 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines()[-1] == str(folder)


def test_pre_stop_asks_the_first_process_and_waits_for_it(tmp_path: Path) -> None:
    """Its words with another process for the container's first."""
    ready, code = (
        tmp_path / "ready",
        "import signal, sys, pathlib; signal.signal(15, lambda *_: sys.exit(75)); ",
    )
    first = subprocess.Popen(
        [sys.executable, "-c", f"{code}pathlib.Path({str(ready)!r}).touch(); signal.pause()"]
    )
    until(ready.exists)
    script = f"kill -TERM {first.pid}; while kill -0 {first.pid} 2>/dev/null; do sleep 0.2; done"
    waiting = subprocess.Popen(["/bin/sh", "-c", script])
    assert first.wait(30) == 75
    assert waiting.wait(30) == 0


CONFINED = """
mount --bind "$1" /mnt && chown -R 1000:1000 /mnt || exit 99
mount -o remount,bind,ro / && mount -t tmpfs tmpfs /tmp || exit 99
cd /mnt && exec env -i HOME=/tmp PYTHONPATH=/mnt/tree PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PATH="$PATH" \\
    setpriv --reuid 1000 --regid 1000 --clear-groups --bounding-set=-all --no-new-privs \\
    /usr/bin/python3 -P -m cluster.kubernetes.pod run /mnt/run
"""
UNPRIVILEGED = """
import errno
try:
    Path("/x").touch()
except OSError as error:
    assert error.errno == errno.EROFS
else:
    sys.exit(5)
assert os.getuid() == 1000 and "CapEff:\t0000000000000000" in Path("/proc/self/status").read_text()
"""


def confined(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["unshare", "--mount", *words], capture_output=True, text=True, check=False)


def test_a_pod_needs_no_root_no_writable_image_and_no_packages(tmp_path: Path) -> None:
    """As the manifest has it: user 1000, a root file system that cannot be written, no capabilities; and with the
    bare Python of this machine, which has none of what castbank installs."""
    python = Path("/usr/bin/python3")
    if not python.exists() or confined("true").returncode != 0 or os.getuid() != 0:
        pytest.skip("needs /usr/bin/python3, root, and the right to make a mount namespace")
    if subprocess.run(
        [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False
    ).returncode:
        pytest.skip("/usr/bin/python3 is older than 3.11")
    shutil.copytree(ROOT / "cluster", tmp_path / "data" / "tree" / "cluster")
    spec = training(tmp_path / "data" / "run", UNPRIVILEGED, resources=Resources())
    inside = replace(spec, folder=Path("/mnt/run"), workdir=Path("/mnt"))
    JobFolder(spec.folder).write_spec(inside)
    done = confined("sh", "-c", CONFINED, "sh", str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcome(spec).state == "succeeded"
    assert "attempt 1 ok: done" in done.stdout


def test_the_image_holds_the_tree_and_no_root() -> None:
    lines = (ROOT / "cluster" / "templates" / "Containerfile").read_text(encoding="utf-8").splitlines()
    for room in ("cluster", "data_prep", "jobs", "pipeline"):
        assert f"COPY {room} {room}" in lines
    text = "\n".join(lines)
    assert "--constraint constraints.txt" in text and "PYTHONPATH=/opt/castbank" in text
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000:1000"]
    assert f"HOME={HOME}" in text
