"""Two nodes try to compute together as a training's ranks do: one connection, then sums over gloo and NCCL.

Nothing of ours is imported, so that the text of this file can be handed to any Python that has torch through its
standard input: ``python -P - ORDER`` on both nodes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

MARK = "CASTBANK-LINK "
SUM_MIB = 16
POLL_S = 0.2


@dataclass(frozen=True)
class Order:
    """first: what the scheduler calls the node of rank 0 (empty where rank is given); master: its host's name."""

    master: str
    port: int
    timeout_s: float
    first: str = ""
    rank: int = -1


@dataclass(frozen=True)
class LinkReport:
    """How one of the two fared. stage: name, port, torch, gloo or nccl, where it stopped; done: all worked.

    via: this node's address towards the other; gloo_mib_s, nccl_mib_s: of sums of 16 MiB, 0 where not tried.
    """

    rank: int
    host: str
    stage: str = ""
    problem: str = ""
    via: str = ""
    interface: str = ""
    gloo_mib_s: float = 0.0
    nccl_mib_s: float = 0.0


def meet(order: Order) -> LinkReport:
    """Join the other node and compute with it."""
    rank = order.rank if order.rank >= 0 else int(os.environ["SLURMD_NODENAME"] != order.first)
    found: dict[str, Any] = {"rank": rank, "host": socket.gethostname()}
    found["interface"] = os.environ.get("GLOO_SOCKET_IFNAME", "")
    stage = "name"
    try:
        found["via"] = towards(order.master, order.port)
        stage = "port"
        knock(rank, order)
        stage = "torch"
        import torch.distributed as dist

        stage = "gloo"
        limit = timedelta(seconds=order.timeout_s)
        where = f"tcp://{order.master}:{order.port}"
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=2, timeout=limit)
        found["gloo_mib_s"] = speed("cpu", None)
        if both_have_gpus():
            stage = "nccl"
            found["nccl_mib_s"] = speed("cuda", dist.new_group(backend="nccl", timeout=limit))
        stage = ""
        dist.barrier()
        dist.destroy_process_group()
    except (OSError, RuntimeError, ImportError, ValueError) as error:  # torch raises RuntimeErrors
        found["problem"] = (str(error).splitlines() or [type(error).__name__])[0]
    return LinkReport(stage=stage, **found)


def knock(rank: int, order: Order) -> None:
    """One connection from the second node to the first, which tells a closed port from what torch may make of it.

    Raises:
        OSError: it did not come about in time.
    """
    if rank == 0:
        with socket.create_server(("", order.port)) as door:
            door.settimeout(order.timeout_s)
            visitor, _ = door.accept()
            with visitor:
                visitor.settimeout(order.timeout_s)
                visitor.recv(1)  # nothing: the other end closes first, so that the port is free again at once
        return
    until_s = time.monotonic() + order.timeout_s
    while True:
        try:
            socket.create_connection((order.master, order.port), timeout=order.timeout_s).close()
        except ConnectionRefusedError:  # the first node is not there yet
            if time.monotonic() > until_s:
                raise
            time.sleep(POLL_S)
        else:
            return


def towards(host: str, port: int) -> str:
    """Our address on the way to a host; nothing is sent."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as asked:
        asked.connect(address)
        return str(asked.getsockname()[0])


def speed(device: str, group: Any) -> float:
    """MiB per second of sums over both nodes, the first of which is not counted.

    Raises:
        RuntimeError: the sum is wrong.
    """
    import torch
    import torch.distributed as dist

    def total() -> float:
        values = torch.ones(SUM_MIB * 2**18, device=device)
        dist.all_reduce(values, group=group)
        return float(values.sum())  # waits for the GPU

    total()
    started_s = time.monotonic()
    if total() != 2 * SUM_MIB * 2**18:
        raise RuntimeError("the sum over both nodes is wrong")
    return SUM_MIB / (time.monotonic() - started_s)


def both_have_gpus() -> bool:
    """Whether NCCL can be tried."""
    import torch
    import torch.distributed as dist

    have = torch.tensor([int(torch.cuda.is_available() and dist.is_nccl_available())])
    dist.all_reduce(have, op=dist.ReduceOp.MIN)
    return bool(have.item())


def to_line(report: LinkReport) -> str:
    """The report as one line."""
    return MARK + json.dumps(asdict(report))


def from_text(text: str) -> list[LinkReport]:
    """Every report in what programs have printed."""
    lines = [line for line in text.splitlines() if line.startswith(MARK)]
    return [LinkReport(**json.loads(line[len(MARK) :])) for line in lines]


if __name__ == "__main__":
    sys.stdout.write(to_line(meet(Order(**json.loads(sys.argv[1])))) + "\n")
