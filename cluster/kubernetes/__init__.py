"""Kubernetes as a place for jobs, through ``kubectl`` where a job is submitted and plain processes in its pods.

What runs where:

    alone  one pod                 the supervisor, as everywhere else
    part   a pod per array part    ``cluster.array_part``: a supervisor for each
    gang   a pod per node          ``node`` in every pod: they gather, run the ranks, and agree on how it ended
    ray    a RayCluster            the supervisor, as the entrypoint of a RayJob on the head

Retries that need no new pod happen in the pod; Kubernetes replaces pods that are gone. The exit codes of a pod say
which: see ``pod``. No API server was at hand when this was written: manifests are checked against the published
schemas of the core kinds and against schemas of our own for the custom ones, ``kubectl`` against an emulated
server, and what runs in pods as plain processes. Neither a kubelet, nor the job controller, KubeRay, JobSet, the
training operator or Kueue has run any of it here.
"""
