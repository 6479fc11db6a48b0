"""What sbatch is given: a bash script that keeps a job's supervisor alive, hands signals on to it and asks for a
requeue when it was stopped and can go on. Pure text, so that it can be read, and sent by hand, before it is sent.

Options are ``#SBATCH`` lines. sbatch reads their values with rules of its own: ``"`` and ``'`` quote, a backslash
escapes even between quotes, and an unquoted ``#`` ends the line; so ``shlex`` is not what quotes them.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from cluster import secret_values
from cluster.job_folder import JobFolder
from cluster.spec import EXIT_REQUEUE, JobError, JobSpec

PASSED_ON = (  # of the submitter's environment; nothing that may be a secret
    "HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
    "CASTBANK_HOME", "CUDA_HOME", "HF_HOME", "XDG_CACHE_HOME",
)  # fmt: skip
OWN_OPTIONS = {  # what the rest of a job file says already, or what keeps the job's promises
    "array": "array", "chdir": "workdir", "cpus-per-task": "resources.cpus_per_process", "dependency": "after",
    "error": "", "export": "environment and secrets", "export-file": "environment and secrets",
    "get-user-env": "environment", "input": "", "job-name": "name", "kill-on-invalid-dep": "", "mem": "resources",
    "nice": "priority", "no-requeue": "preemptible", "nodes": "resources.nodes", "ntasks": "resources",
    "ntasks-per-node": "resources.processes_per_node", "open-mode": "", "output": "", "parsable": "",
    "requeue": "preemptible", "signal": "stopping.grace_s", "test-only": "", "time": "resources.time_limit_min",
    "wait": "", "wrap": "",
}  # fmt: skip
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OPTION = re.compile(r"--([a-z][a-z0-9-]*)(=.*)?")
MAX_VALUE = 2000  # sbatch cuts the words of its lines at 8 KiB without a word

BODY = """\
set -u
asked= supervisor=
trap 'asked=x$asked; [ -z "$supervisor" ] || kill -TERM "$supervisor" 2>/dev/null' TERM USR1
{exports}\
cd {workdir} || exit 2
{command} &
supervisor=$!
[ -z "$asked" ] || kill -TERM "$supervisor" 2>/dev/null
code=
while :; do  # a signal cuts wait short; a second wait for the same end says 127
    before=$asked
    wait "$supervisor"; now=$?
    if [ "$now" != 127 ] || [ -z "$code" ]; then code=$now; fi
    [ "$asked" != "$before" ] || break
done
[ -z "$asked" ] || [ "$code" != 143 ] || code={again}  # it had not yet begun to listen
{requeue}\
exit "$code"
"""

REQUEUE = """\
if [ "$code" = {again} ] && [ ! -e {cancelled} ]; then
    read -r restarts <<< "$(squeue --noheader --jobs={id} --Format=RestartCnt)"
    if [ "$restarts" = "${{SLURM_RESTART_COUNT:-0}}" ]; then  # else it runs elsewhere already: this node was lost
        scontrol requeue {id}
    fi
fi
"""


def script(spec: JobSpec) -> str:
    """The batch script.

    Raises:
        JobError: a value cannot be given to Slurm, or contradicts another.
    """
    check(spec)
    options = "".join(f"#SBATCH --{option}\n" for option in _options(spec))
    place = JobFolder(spec.folder)
    words = [spec.command[0], "-P", "-m"]
    if spec.array:
        command = shlex.join([*words, "cluster.array_part", str(spec.folder)]) + ' "$SLURM_ARRAY_TASK_ID"'
        own_id = (
            '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'  # SLURM_JOB_ID may be that of the whole array
        )
    else:
        command, own_id = shlex.join([*words, "cluster.supervisor", str(spec.folder)]), '"$SLURM_JOB_ID"'
    requeue = REQUEUE.format(again=EXIT_REQUEUE, cancelled=shlex.quote(str(place.cancelled)), id=own_id)
    body = BODY.format(
        exports=_exports(spec),
        workdir=shlex.quote(str(spec.workdir)),
        command=command,
        again=EXIT_REQUEUE,
        requeue=requeue if spec.preemptible else "",
    )
    return f"#!/bin/bash\n{options}\n# castbank job {spec.id}\n{body}"


def check(spec: JobSpec) -> None:
    """Refuse what Slurm would misread.

    Raises:
        JobError: names the value, and what to do.
    """
    secret_values.check(spec.secrets, ("env", "file"), "slurm")
    for variable in (*spec.environment, *spec.secrets, *secrets_of_environment(spec.secrets)):
        if not VARIABLE.fullmatch(variable):
            raise JobError(f"environment: {variable!r} is no name of a variable; use letters, digits and _")
    _check_texts(spec)
    if "\\" in str(spec.folder):
        raise JobError(f"folder: {str(spec.folder)!r} holds a backslash, which Slurm takes out of paths")
    _check_container(spec)
    limit_s, grace_s = spec.resources.time_limit_min * 60, spec.stopping.grace_s
    if limit_s and limit_s <= grace_s:
        raise JobError(
            f"resources.time_limit_min: {limit_s // 60} min are used up by the {grace_s} s of stopping.grace_s; "
            "raise the one or lower the other"
        )
    _check_extra(spec.slurm.extra)


def secrets_of_environment(references: Mapping[str, str]) -> list[str]:
    """Variables of the submitter's environment that secrets name."""
    split = (secret_values.split(variable, reference) for variable, reference in references.items())
    return sorted({place for kind, place in split if kind == "env"})


def tasks_per_node(spec: JobSpec) -> int:
    """Tasks that Slurm starts on each node: ranks; anything else is one task."""
    return spec.resources.processes_per_node if spec.ranks else 1


def cpus_per_task(spec: JobSpec) -> int:
    """Cores of a task; one task that is not a rank has those of all processes of its node."""
    has = spec.resources
    return has.cpus_per_process if spec.ranks else has.cpus_per_process * has.processes_per_node


def pattern(path: object) -> str:
    """A path as Slurm's file name patterns want it."""
    return str(path).replace("%", "%%")


def _options(spec: JobSpec) -> Iterator[str]:
    """Every option, quoted, without its dashes."""
    has, slurm, place = spec.resources, spec.slurm, JobFolder(spec.folder)
    yield f"job-name={_quoted(spec.name)}"
    log = f"{pattern(place.logs)}/part-%a.log" if spec.array else pattern(place.log)
    yield f"output={_quoted(log)}"
    yield "open-mode=append"
    if spec.array:
        yield f"array=1-{spec.array}"
    yield f"nodes={1 if spec.array else has.nodes}"
    yield f"ntasks-per-node={tasks_per_node(spec)}"
    yield f"cpus-per-task={cpus_per_task(spec)}"
    num_gpus = has.gpus_per_process * has.processes_per_node
    if slurm.gres or num_gpus:
        yield f"gres={_quoted(slurm.gres or f'gpu:{num_gpus}')}"
    if has.memory_gib:
        yield f"mem={math.ceil(has.memory_gib * 1024)}M"
    if has.time_limit_min:
        yield f"time={has.time_limit_min}"
    for name in ("partition", "account", "qos", "constraint", "reservation", "exclude"):
        if value := getattr(slurm, name):
            yield f"{name}={_quoted(value)}"
    if spec.priority:
        yield f"nice={-spec.priority}"
    yield f"signal=B:USR1@{spec.stopping.grace_s}"
    yield "requeue" if spec.preemptible else "no-requeue"
    yield f"export={','.join(dict.fromkeys((*PASSED_ON, *secrets_of_environment(spec.secrets))))}"
    for word in slurm.extra:
        name, equals, value = word.removeprefix("--").partition("=")
        yield f"{name}={_quoted(value)}" if equals else name


def _texts(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Every text that becomes part of a line, under its name in the job file."""
    yield from {"name": spec.name, "id": spec.id, "folder": str(spec.folder)}.items()
    for name in ("partition", "account", "qos", "constraint", "reservation", "exclude", "gres"):
        yield f"slurm.{name}", getattr(spec.slurm, name)
    yield from (("slurm.extra", word) for word in spec.slurm.extra)


def _check_texts(spec: JobSpec) -> None:
    for what, value in _texts(spec):
        if any(not character.isprintable() for character in value):
            raise JobError(f"{what}: {value!r} holds a control character; use printable text only")
        if len(value.encode()) > MAX_VALUE:
            raise JobError(f"{what}: {len(value.encode())} bytes; sbatch takes {MAX_VALUE}")


def _check_extra(extra: Sequence[str]) -> None:
    for word in extra:
        found = OPTION.fullmatch(word)
        if found is None:
            raise JobError(f"slurm.extra: {word!r} is no option; give each as one word: --comment=x")
        if found[1] in OWN_OPTIONS:
            instead = OWN_OPTIONS[found[1]]
            raise JobError(
                f"slurm.extra: --{found[1]} is not free, castbank sets it; "
                + (f"use {instead} of the job file" if instead else "leave it out")
            )


def _check_container(spec: JobSpec) -> None:
    kind = spec.slurm.container
    if kind == "none":
        return
    if not spec.image:
        raise JobError(f"slurm.container: {kind} needs an image; give image, or slurm.container=none")
    for mount in spec.mounts:
        parts = mount.split(":")
        if len(parts) not in (2, 3) or not all(part.startswith("/") for part in parts[:2]) or "," in mount:
            raise JobError(f"mounts: {mount!r} is no HOST:CONTAINER[:ro] of absolute paths without commas")


def _exports(spec: JobSpec) -> str:
    values = dict(spec.environment) | {"PYTHONUNBUFFERED": "1"}
    if spec.code is not None:
        values |= {"PYTHONPATH": str(spec.code), "PYTHONSAFEPATH": "1"}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))


def _quoted(value: str) -> str:
    """As sbatch unquotes it; plain words stay as they are."""
    if re.fullmatch(r"[A-Za-z0-9_./:@%+=,\[\]-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
