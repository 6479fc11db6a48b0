"""A hundred jobs with text that parsers fall for, against schemas, the API server's rules and two YAML parsers."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from cluster.kubernetes.launcher import KubernetesLauncher
from cluster.spec import JobError, JobSpec, KubernetesOptions, Resources, Retry, Stopping
from tests.cluster.kubernetes_rules import check, templates

NASTY = [
    *"'\"\\`$#%&*!|>-?:,[]{}@=~ \t\n\r\x01\x1b\x7f\x85\u2028\ufeff\uffff",
    *(
        "$(HOME)",
        "$$",
        "${x}",
        "{{.Values}}",
        "---",
        "...",
        "yes",
        "1e3",
        "0o17",
        "0x1f",
        "1_000",
        "null",
        "<<",
    ),
    *("é", "漢", "😀", "- a", ": b", "# c", "\r\n", "1:30", "=", "!!int 1", "&a", "*a", "%TAG", "{part}"),
]


def hostile(seed: int) -> JobSpec:
    """A job with text in it that no parser should take for anything else, and numbers at their ends."""
    draw = random.Random(seed)

    def text() -> str:
        return "".join(draw.choice(NASTY) for _ in range(draw.randint(0, 6)))

    folder = Path("/data") / (text().replace("/", "").replace(".", "") or "x")
    ranks, nodes = draw.random() < 0.5, draw.randint(1, 5)
    array = 0 if ranks else draw.choice([0, 0, 1, 1000])
    kinds = [
        "auto",
        "jobset",
        *(["pytorchjob", "job"] if ranks else []),
        *(["rayjob"] if not ranks and not array else []),
    ]
    if not ranks and not array and nodes > 1:
        kinds.remove("jobset")
    return JobSpec(
        id=text() + draw.choice(["", "x" * 80]),
        name=text(),
        place="kubernetes",
        command=("/usr/bin/python3", "-P", *(text() for _ in range(draw.randint(0, 4)))),
        folder=folder,
        workdir=folder,
        code=draw.choice([None, folder / "job" / "code"]),
        environment={draw.choice(["A", "B.c", "_", "PYTHONPATH", "TOKEN"]): text() for _ in range(3)},
        secrets=draw.choice([{}, {"TOKEN": "kubernetes:a.b/c_d"}]),
        resources=Resources(
            nodes,
            draw.randint(1, 8),
            draw.randint(1, 64),
            draw.randint(0, 1),
            draw.choice([0, 8.3, 2000]),
            draw.choice([0, 1]),
        ),
        retry=Retry(draw.randint(1, 5), on_exit_codes=tuple(draw.sample(range(256), draw.randint(0, 3)))),
        stopping=Stopping(draw.randint(1, 600), draw.randint(1, 9000)),
        ranks=ranks,
        array=array,
        after=tuple(Path("/data") / text() for _ in range(draw.randint(0, 2))),
        image="example/image@sha256:" + "0" * 64,
        mounts=draw.choice([(), ("/a b:/c d",), ("claim:/x", "claim/below:/y:ro"), (f"/{text()}:/z",)]),
        priority=draw.randint(-2, 2),
        preemptible=draw.random() < 0.5,
        kubernetes=KubernetesOptions(
            volume="data",
            kind=draw.choice(kinds),  # type: ignore[arg-type]
            queue=draw.choice(["", "team-a"]),
            node_selector=draw.choice([{}, {"example.com/" + "k" * 63: "", "yes": "1e3"}]),
            shared_memory_gib=draw.choice([0.001, 8, 8.2]),
        ),
    )


def hostile_jobs() -> Iterator[tuple[JobSpec, str]]:
    """Those of a hundred that can be rendered; the others say why not."""
    for seed in range(100):
        spec = hostile(seed)
        try:
            yield spec, KubernetesLauncher().render(spec)
        except JobError as error:
            assert re.match(r"(mounts|kubernetes\.[a-z_]+|resources\.[a-z_]+)\b", str(error)), error


def test_hostile_jobs_make_objects_that_an_api_server_takes() -> None:
    kinds: Counter[str] = Counter()
    for spec, text in hostile_jobs():
        first, *_ = documents = list(yaml.safe_load_all(text))
        for document in documents:
            check(document)
            kinds[document["kind"]] += 1
        assert first["metadata"]["annotations"]["castbank/name"] == spec.name
        for template in templates(first):
            for item in template["spec"]["containers"][0]["env"]:
                if item["name"] in spec.environment and item["name"] not in ("PYTHONPATH", "TOKEN"):
                    assert expanded(item["value"]) == spec.environment[item["name"]]
            for container in template["spec"]["containers"]:
                if "command" in container:
                    assert expanded(container["command"][-1]) == str(spec.folder)
    assert sum(kinds.values()) > 70 and set(kinds) == {"Job", "JobSet", "PyTorchJob", "RayJob", "Service"}, (
        kinds
    )


def expanded(value: str) -> str:
    """What a process gets of a value: $$ is $, and $(NAME) would be replaced, which must not be there."""
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", value)
    return value.replace("$$", "$")
