"""This machine as a scheduler: a job is a process group of its own that outlives its submitter.

The folder of a job holds ``job.sh`` (what ran), ``log.txt`` (stdout and stderr), ``process.json`` (pid and start
time, so that a recycled pid is not taken for the job) and, written last, ``exit_code``.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from cluster.spec import JobSpec, State

SCRIPT, LOG, PROCESS, EXIT_CODE = "job.sh", "log.txt", "process.json", "exit_code"
POLL_S = 0.2


class LocalLauncher:
    """Runs jobs on this machine; see ``cluster.launchers.Launcher``."""

    def render(self, spec: JobSpec) -> str:
        """A bash script that runs the command and commits its exit code with a rename."""
        exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in sorted(spec.environment.items()))
        exit_code = shlex.quote(str(spec.folder.absolute() / EXIT_CODE))
        return (
            "#!/usr/bin/env bash\n"
            f"# castbank job: {spec.name}\n"
            f"{exports}"
            f"{shlex.join(spec.command)} &\n"
            "child=$!\n"
            "trap 'kill -TERM $child 2>/dev/null' TERM INT\n"
            "wait $child; code=$?\n"
            "while kill -0 $child 2>/dev/null; do wait $child; code=$?; done\n"
            f"echo $code > {exit_code}.aside && mv {exit_code}.aside {exit_code}\n"
            "exit $code\n"
        )

    def submit(self, spec: JobSpec) -> str:
        """Start the job in a session of its own.

        Raises:
            RuntimeError: the folder's job is still running.
        """
        folder = spec.folder.absolute()
        if self.state(str(folder)) == "running":
            raise RuntimeError(f"job {str(folder)!r} is still running; cancel it or wait for it")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / EXIT_CODE).unlink(missing_ok=True)
        (folder / SCRIPT).write_text(self.render(spec), encoding="utf-8")
        with (folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                ["bash", str(folder / SCRIPT)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = psutil.Process(process.pid).create_time()
        aside = folder / f"{PROCESS}.aside"
        aside.write_text(json.dumps({"pid": process.pid, "started": started}), encoding="utf-8")
        aside.replace(folder / PROCESS)
        return str(folder)

    def state(self, job_id: str) -> State:
        """How the job of a folder stands; ``unknown`` where no job was ever started."""
        folder = Path(job_id)
        started = (folder / PROCESS).is_file()
        alive = (
            started and self._process(folder) is not None
        )  # asked first: the exit code comes before the end
        code = self.exit_code(job_id)
        if code is not None:
            return "succeeded" if code == 0 else "failed"
        if not started:
            return "unknown"
        return "running" if alive else "lost"

    def exit_code(self, job_id: str) -> int | None:
        """The exit code of a job that has ended by itself, else None."""
        path = Path(job_id) / EXIT_CODE
        return int(path.read_text(encoding="utf-8")) if path.is_file() else None

    def cancel(self, job_id: str) -> None:
        """SIGTERM to the job's script, which hands it to the command."""
        process = self._process(Path(job_id))
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                process.terminate()

    def follow(self, job_id: str) -> Iterator[str]:
        """The log line by line as it grows, until the job has ended."""
        with (Path(job_id) / LOG).open(encoding="utf-8", errors="replace") as log:
            pending = ""
            while True:
                ended = self.state(job_id) != "running"
                pending += log.read()
                *lines, pending = pending.split("\n")
                yield from lines
                if ended:
                    break
                time.sleep(POLL_S)
            if pending:
                yield pending

    def _process(self, folder: Path) -> psutil.Process | None:
        record = json.loads((folder / PROCESS).read_text(encoding="utf-8"))
        try:
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["started"]) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None
