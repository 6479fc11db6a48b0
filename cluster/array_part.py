"""One part of an array, where a scheduler starts each by itself: a job of its own in ``FOLDER/job/part-K``.

So every part has its attempts, its heartbeats and its outcome, and what was done is not done again when the array
is handed over a second time, unless something else is asked of it now. The part that ends last notes how the whole
ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster.job_folder import JobFolder, Outcome, write_atomic
from cluster.spec import JobError, JobSpec
from cluster.supervisor import Supervisor

ASKED = "asked.sha256"  # in a part's ``job``: of what it was asked to do


def part_folder(whole: Path, number: int) -> Path:
    """The folder of a part; number: 1 to the length of the array."""
    return JobFolder(whole).job / f"part-{number}"


def part_spec(spec: JobSpec, number: int) -> JobSpec:
    """A part as a job."""
    own, command = part_folder(spec.folder, number), spec.part_command(number)
    return replace(spec, id=f"{spec.id}-{number}", command=command, folder=own, array=0)


def renew(spec: JobSpec) -> None:
    """Forget how parts ended that are to run, before the array is handed over again."""
    for number in range(1, spec.array + 1):
        part = JobFolder(part_folder(spec.folder, number))
        if not _is_done(spec, number) and part.job.is_dir():
            part.renew()
            part.forgive()


def run(whole: Path, number: int) -> int:
    """Run a part to its end, unless just that was done before; the exit code."""
    spec = JobFolder(whole).spec()
    part = JobFolder(part_folder(whole, number))
    code = 0
    if not _is_done(spec, number):
        part.renew()
        part.write_spec(part_spec(spec, number))
        write_atomic(part.job / ASKED, _asked(spec, number))
        _link(whole, number)
        code = Supervisor(part.folder).run()
    note_whole(whole, spec.array)
    return code


def outcomes(whole: Path, length: int) -> dict[int, Outcome]:
    """How the parts ended that have."""
    found = {k: _outcome(JobFolder(part_folder(whole, k))) for k in range(1, length + 1)}
    return {k: outcome for k, outcome in found.items() if outcome is not None}


def note_whole(whole: Path, length: int) -> None:
    """Note how the array ended, once each part has and none is to go on; a cancelled one does not wait for those
    that never began."""
    place, found = JobFolder(whole), outcomes(whole, length)
    cancelled = place.cancelled.exists()
    if not cancelled and (len(found) < length or any(o.state == "preempted" for o in found.values())):
        return
    bad = {k: outcome for k, outcome in found.items() if outcome.state == "failed"}
    if bad:
        number, first = next(iter(bad.items()))
        reason = f"{len(bad)} of {length} parts failed; part {number}: {first.reason}"
        place.write_outcome("failed", first.exit_code or 1, reason)
    elif len(found) == length and all(outcome.state == "succeeded" for outcome in found.values()):
        place.write_outcome("succeeded", 0, "")
    else:
        place.write_outcome("cancelled", 0, f"{len(found)} of {length} parts had begun")


def _outcome(part: JobFolder) -> Outcome | None:
    with contextlib.suppress(JobError):  # it begins anew at this moment
        return part.outcome()
    return None


def _is_done(spec: JobSpec, number: int) -> bool:
    """Whether a part has succeeded at what is asked of it now: an array may be submitted anew with other keys."""
    part = JobFolder(part_folder(spec.folder, number))
    outcome = _outcome(part)
    if outcome is None or outcome.state != "succeeded":
        return False
    with contextlib.suppress(OSError):
        return (part.job / ASKED).read_text(encoding="utf-8") == _asked(spec, number)
    return False


def _asked(spec: JobSpec, number: int) -> str:
    """Of what a part is asked to do: its command, and the configuration that it reads."""
    config = JobFolder(spec.folder).job / "config.yaml"
    words = json.dumps(part_spec(spec, number).command).encode()
    return hashlib.sha256(words + b"\0" + (config.read_bytes() if config.is_file() else b"")).hexdigest()


def _link(whole: Path, number: int) -> None:
    """The whole's requests are the part's; the part's logs lie with the whole's."""
    place, part = JobFolder(whole), JobFolder(part_folder(whole, number))
    for own, target in (
        (part.cancelled, Path("../../cancelled")),
        (part.stop, Path("../../stop")),
        (part.log, Path(f"../../logs/part-{number}.log")),
        (place.rank_log(number - 1), Path(f"../part-{number}/job/logs/rank-0.log")),
    ):
        own.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            own.symlink_to(target)


def main(arguments: Sequence[str]) -> int:
    """Run a part, given the array's folder and the part's number."""
    return run(Path(arguments[0]), int(arguments[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
