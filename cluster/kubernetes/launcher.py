"""A Kubernetes cluster as a submitter sees it, through ``kubectl``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import array_part
from cluster.job_folder import JobFolder
from cluster.kubernetes.checks import check, check_text, mounts
from cluster.kubernetes.kubectl import AlreadyThereError, Cluster, NotThereError
from cluster.kubernetes.objects import documents
from cluster.kubernetes.shape import RESOURCES, kind_of, name_of
from cluster.kubernetes.states import status_of
from cluster.kubernetes.yaml_text import dump
from cluster.spec import LIVE, JobError, JobSpec, Status

MANY = 50  # jobs that are asked for by name; more would make the question too long, so all of castbank's are


class KubernetesLauncher:
    """See ``cluster.launchers.Launcher``; the scheduler's id of a job is its object as KIND/NAME."""

    def render(self, spec: JobSpec) -> str:
        """The job's objects as YAML documents, the job itself first.

        Raises:
            JobError: the job cannot run on Kubernetes as it is; says which field is wrong.
        """
        check(spec)
        made = documents(spec)
        check_text(made)
        comments = [f"castbank job {name_of(spec.id)}: {', '.join(item['kind'] for item in made)}"]
        if spec.after:
            comments.append(
                f"The init container 'wait' holds each pod until {len(spec.after)} earlier job(s) have succeeded, "
                "as their job/outcome.json says; the time counts towards activeDeadlineSeconds."
            )
        if spec.priority:
            comments.append("The cluster has to define the PriorityClass that priorityClassName names.")
        return dump(made, comments)

    def submit(self, spec: JobSpec, after: Sequence[str]) -> str:
        """Create the job's objects; what is left of an earlier, ended submission is removed first.

        ``after`` is the pods' affair: they look at the outcomes of those jobs.

        Raises:
            JobError: kubectl or the cluster is not there, refuses, or lacks a claim, a namespace or a kind.
        """
        place, cluster = JobFolder(spec.folder), Cluster.of(spec)
        text = self.render(spec)
        place.script.parent.mkdir(parents=True, exist_ok=True)
        place.script.write_text(text, encoding="utf-8")
        self._check_claims(spec, cluster)
        array_part.renew(spec)
        job, *others = documents(spec)
        made = self._create(spec, cluster, job)
        owner = {
            "apiVersion": job["apiVersion"],
            "kind": job["kind"],
            "name": job["metadata"]["name"],
            "uid": made["metadata"]["uid"],
        }
        scheduler_id = f"{RESOURCES[kind_of(spec)]}/{name_of(spec.id)}"
        for other in others:
            other["metadata"]["ownerReferences"] = [owner]  # it goes when the job goes
            try:
                self._make_or_replace(cluster, json.dumps(other))
            except JobError:
                self.cancel(spec, scheduler_id)
                raise
        return scheduler_id

    def states(self, jobs: Mapping[str, JobSpec]) -> dict[str, Status]:
        """How jobs stand: one question for all of a cluster's namespace, pods included.

        Raises:
            JobError: a cluster cannot be asked.
        """
        by_cluster: dict[Cluster, dict[str, JobSpec]] = defaultdict(dict)
        for scheduler_id, spec in jobs.items():
            by_cluster[Cluster.of(spec)][scheduler_id] = spec
        found: dict[str, Status] = {}
        for cluster, specs in by_cluster.items():
            found |= self._ask(cluster, specs)
        return found

    def cancel(self, spec: JobSpec, scheduler_id: str) -> None:
        """Delete the job: its pods are asked to stop and have grace_s for a checkpoint."""
        Cluster.of(spec).ask(
            "delete", scheduler_id, "--ignore-not-found", "--wait=false", "--cascade=background"
        )

    def _create(self, spec: JobSpec, cluster: Cluster, job: dict[str, Any]) -> dict[str, Any]:
        given, scheduler_id = json.dumps(job), f"{RESOURCES[kind_of(spec)]}/{name_of(spec.id)}"
        words = ("create", "--filename=-", "--output=json")
        try:
            made: dict[str, Any] = json.loads(cluster.ask(*words, given=given))
        except AlreadyThereError as error:
            stands = self._ask(cluster, {scheduler_id: spec})[scheduler_id]
            if stands.state in LIVE:
                raise JobError(
                    f"job {spec.id} is in the cluster already, as {scheduler_id}, and {stands.state}; cancel it, "
                    "or wait for its end"
                ) from error
            cluster.ask("delete", scheduler_id, "--ignore-not-found", "--wait=true", "--cascade=foreground")
            made = json.loads(cluster.ask(*words, given=given))
        return made

    def _make_or_replace(self, cluster: Cluster, given: str) -> None:
        try:
            cluster.ask("create", "--filename=-", given=given)
        except AlreadyThereError:
            cluster.ask("replace", "--filename=-", given=given)

    def _check_claims(self, spec: JobSpec, cluster: Cluster) -> None:
        """Raise JobError for a claim that is not there: its pods would wait without end."""
        for claim in sorted({mount.claim for mount in mounts(spec) if mount.claim}):
            try:
                found = cluster.get(f"persistentvolumeclaim/{claim}")
            except NotThereError:
                found = {}
            if not found:
                field = "kubernetes.volume" if claim == spec.kubernetes.volume else "mounts"
                raise JobError(
                    f"{field}: namespace {cluster.namespace!r} has no PersistentVolumeClaim {claim!r}; kubectl get "
                    "pvc lists those that it has"
                )

    def _ask(self, cluster: Cluster, jobs: Mapping[str, JobSpec]) -> dict[str, Status]:
        names = sorted({name_of(spec.id) for spec in jobs.values()})
        selector = f"castbank.job in ({','.join(names)})" if len(names) <= MANY else "castbank.job"
        kinds = sorted({RESOURCES[kind_of(spec)] for spec in jobs.values()})
        items = cluster.get(",".join([*kinds, "pods"]), f"--selector={selector}").get("items", [])
        objects, pods = {}, defaultdict(list)
        for item in items:
            name = item["metadata"].get("labels", {}).get("castbank.job", "")
            if item["kind"] == "Pod":
                pods[name].append(item)
            elif item["metadata"]["name"] == name:  # a JobSet's Jobs have its label too
                objects[item["kind"].lower(), name] = item
        return {
            scheduler_id: self._status(
                spec, objects.get((kind_of(spec), name_of(spec.id))), pods[name_of(spec.id)]
            )
            for scheduler_id, spec in jobs.items()
        }

    def _status(self, spec: JobSpec, described: dict[str, Any] | None, pods: list[dict[str, Any]]) -> Status:
        if described is not None and "deletionTimestamp" not in described["metadata"]:
            return status_of(described, pods)
        ending = [pod for pod in pods if pod.get("status", {}).get("phase") in ("Pending", "Running")]
        if ending:
            return Status("running", "is being ended")
        if JobFolder(spec.folder).cancelled.exists():
            return Status("cancelled")
        return Status("unknown", f"namespace {spec.kubernetes.namespace!r} has no such job")
