"""Keeps MLflow's server for a dashboard, and ends it when the dashboard is gone in whatever way.

Standard input is a pipe whose other end the dashboard alone holds, so that even its kill -9 is seen here. The
server is several processes, and a master that is killed leaves the others. All are of this process's group, and the
last word to them is a SIGKILL to that group: from here or, where this process is gone first, from the dashboard.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10.0  # for answers that are on their way


def main() -> int:
    """Run ``mlflow server`` with the same arguments; its exit code where it ends by itself."""
    command = [sys.executable, "-m", "mlflow", "server", *sys.argv[1:]]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    alone = threading.Event()
    threading.Thread(target=_end_alone, args=(server, alone), daemon=True).start()
    code = server.wait()
    if alone.is_set():
        os.killpg(0, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _end_alone(server: subprocess.Popen[bytes], alone: threading.Event) -> None:
    """Wait for the end of standard input, then end the server, first asked, then not."""
    os.read(sys.stdin.fileno(), 1)  # not by the object, whose lock would be in the way of this process's end
    alone.set()
    server.terminate()
    try:
        server.wait(GRACE_S)
    finally:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
