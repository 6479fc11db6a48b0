"""``kubectl`` as a function: what it prints, or what went wrong in words that say what to do."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.spec import JobError, JobSpec

PROGRAM = "kubectl"
REQUEST_S = 30  # for one request to the API server
LIMIT_S = 180  # for a whole call, of which a few requests are a part


class AlreadyThereError(JobError):
    """An object of that name is there already."""


class NotThereError(JobError):
    """The object that was asked for is not there."""


@dataclass(frozen=True)
class Cluster:
    """The cluster and namespace that a job goes to."""

    context: str
    namespace: str

    @classmethod
    def of(cls, spec: JobSpec) -> Cluster:
        """That of a job."""
        return cls(spec.kubernetes.context, spec.kubernetes.namespace)

    def ask(self, *words: str, given: str = "") -> str:
        """What kubectl prints for these words, with ``given`` as its input.

        Raises:
            JobError: kubectl is not there, has no cluster, cannot reach it, or is refused.
        """
        where = (*((f"--context={self.context}",) if self.context else ()), f"--namespace={self.namespace}")
        command = (PROGRAM, *where, f"--request-timeout={REQUEST_S}s", *words)
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except FileNotFoundError as error:
            raise JobError(
                "kubectl is not on PATH; install it (Debian: kubernetes-client) and give it a kubeconfig"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise JobError(
                f"kubectl has not answered for {LIMIT_S} s ({' '.join(words[:2])}); is the cluster up?"
            ) from error
        if done.returncode != 0:
            raise self.explain(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def get(self, *words: str) -> dict[str, Any]:
        """What ``kubectl get`` finds, as the API server says it."""
        text = self.ask("get", *words, "--output=json", "--ignore-not-found")
        found: dict[str, Any] = json.loads(text) if text.strip() else {}
        return found

    def explain(self, text: str) -> JobError:
        """An error of kubectl as one of ours, with what to do about it."""
        for pattern, kind, advice in _MEANINGS:
            if match := re.search(pattern, text, re.IGNORECASE):
                return kind(f"{advice(self, match)}; kubectl said: {_one_line(text)}")
        return JobError(f"kubernetes: kubectl said: {_one_line(text)}")


def _one_line(text: str) -> str:
    """The end of a message, where kubectl says what it comes to."""
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not re.match(r"[EWI]\d{4} ", line)
    ]
    return " ".join(lines or [text.strip()])[-600:]


_Advice = Callable[[Cluster, "re.Match[str]"], str]
_OPERATORS = {
    "JobSet": "JobSet is not installed in this cluster; have it installed, or give kubernetes.kind=job",
    "PyTorchJob": "the training operator is not installed in this cluster; give kubernetes.kind=job",
    "RayJob": "KubeRay is not installed in this cluster; have it installed, or give resources.nodes=1",
}


def _missing_kind(_: Cluster, match: re.Match[str]) -> str:
    word = next(filter(None, match.groups()), "").lower()
    known = next((text for kind, text in _OPERATORS.items() if word.startswith(kind.lower())), "")
    return f"kubernetes.kind: {known or f'the cluster knows no {word}'}"


_MEANINGS: Sequence[tuple[str, type[JobError], _Advice]] = (
    (
        r"context .* does not exist|no context exists with the name|context was not found",
        JobError,
        lambda c, _: (
            f"kubernetes.context: came {c.context!r}, which the kubeconfig does not have; "
            "kubectl config get-contexts lists those that it has"
        ),
    ),
    (
        r"current-context is not set|no configuration has been provided|localhost:8080|incomplete config",
        JobError,
        lambda *_: (
            "kubernetes.context: kubectl has no cluster; give it a kubeconfig (KUBECONFIG, ~/.kube/config) and "
            "choose one with kubectl config use-context NAME"
        ),
    ),
    (
        r"no matches for kind \"(\w+)\"|have a resource type \"([\w.-]+)\"|could not find the requested resource",
        JobError,
        _missing_kind,
    ),
    (r"already exists", AlreadyThereError, lambda *_: "kubernetes: an object of this name is there already"),
    (
        r"exceeded quota: ([\w.-]+)",
        JobError,
        lambda c, match: (
            f"resources: quota {match[1]!r} of namespace {c.namespace!r} is used up; ask for less, wait, or "
            "give kubernetes.queue where the cluster has Kueue"
        ),
    ),
    (
        r"namespaces? \"([^\"]+)\" not found",
        JobError,
        lambda c, _: (
            f"kubernetes.namespace: came {c.namespace!r}, which the cluster does not have; give one that it has"
        ),
    ),
    (
        r"no PriorityClass with name (\S+)",
        JobError,
        lambda _, match: (
            f"priority: the cluster has no PriorityClass {match[1]!r}; have it made, or leave priority=0"
        ),
    ),
    (r"\(NotFound\)|not found", NotThereError, lambda *_: "kubernetes: it is not there"),
    (
        r"unauthorized|must be logged in|provide credentials|certificate has expired|token has expired",
        JobError,
        lambda *_: "kubernetes.context: the cluster does not accept your credentials; log in to it again",
    ),
    (
        r"\(Forbidden\)|is forbidden",
        JobError,
        lambda c, _: (
            f"kubernetes.namespace: the cluster does not let you do that in {c.namespace!r}; ask its "
            "administrator, or give another namespace"
        ),
    ),
    (
        r"unable to connect|connection refused|no such host|i/o timeout|deadline exceeded|TLS handshake|"
        r"was refused|no route to host|EOF",
        JobError,
        lambda *_: "kubernetes.context: the cluster cannot be reached; is it up, and are you in its network?",
    ),
)
