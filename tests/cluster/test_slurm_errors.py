"""What sbatch says, as errors that name the line of a job file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.slurm import errors
from cluster.spec import JobError, SlurmOptions
from tests.cluster.slurm_lab.specs import MINIMAL

FAILED = "sbatch: error: Batch job submission failed: "
NODES = "Requested node configuration is not available"
SAID = {  # by sbatch 22.05, and in slurm_errno.c for what a small cluster never says
    f"sbatch: error: invalid partition specified: nix\n{FAILED}Invalid partition name specified":
        "slurm.partition: 'nix' does not exist; there are: debug, gpu",
    f"allocation failure: {NODES}": "resources: .* can never give 1 x 1 processes",
    f"sbatch: error: Memory specification can not be satisfied\n{FAILED}{NODES}":
        "resources.memory_gib: 0 GiB per node is more",
    "sbatch: error: Invalid generic resource (gres) specification": "slurm.gres: partition 'nix' has no gpu",
    f"{FAILED}Invalid feature specification": "slurm.constraint: ",
    f"{FAILED}Requested reservation is invalid": "slurm.reservation: ",
    f"{FAILED}Invalid node name specified": "slurm.exclude: ",
    f"{FAILED}Invalid account or account/partition combination specified": "slurm.account: ",
    f"{FAILED}Invalid qos specification": "slurm.qos: '' is not there",
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
    f"{FAILED}Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)":
        "slurm.qos: a limit of the account or QOS",
    f"{FAILED}Requested time limit is invalid (missing or exceeds some limit)":
        "resources.time_limit_min: 0 min is more",
    f"{FAILED}Node count specification invalid": "resources.nodes: 1 is more",
    f"{FAILED}Invalid job array specification": "array: 0 parts",
    f"{FAILED}Job dependency problem": "after: ",
    "sbatch: unrecognized option '--foo=1'": "slurm.extra: --foo=1 is not understood",
    f"{FAILED}Unable to contact slurm controller (connect failure)": "does not answer .*scontrol ping",
    f"sbatch: error: something new\n{FAILED}Strange": "Strange; to repeat it: sbatch --test",
}  # fmt: skip


@pytest.mark.parametrize("said", SAID)
def test_a_refusal_names_the_line_to_change(said: str) -> None:
    spec = replace(MINIMAL, slurm=SlurmOptions(partition="nix", extra=("--foo=1",)))
    with pytest.raises(JobError, match=SAID[said]):
        raise errors.refusal(spec, said, lambda: ["debug", "gpu"])
