"""Becomes MLflow's server, having asked the kernel for a SIGTERM when its dashboard is gone in whatever way.

A server that outlived its dashboard would hold the port, and nobody would know whose it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by ``mlflow server`` with the same arguments."""
    with contextlib.suppress(
        OSError, AttributeError
    ):  # only Linux has it; elsewhere only a kill -9 leaves a server
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
