"""``castbank prepare``: clips to shards, and in the end what came of every clip in a few lines."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from data_prep.config import PrepareConfig
from data_prep.records import InputError, Json
from jobs.knobs import add_arguments

SUMMARY = """Clips to shards: find people, link their identities, draw masks, choose references, pack.

The manifest is a CSV with UltraVideo's columns; clips lie beside it or in the folder given as clips=FOLDER.
Run again after an interruption and it goes on; run again with nothing changed and it does nothing."""

EXAMPLE = (
    "castbank prepare short.csv --output shards clips=/data/clips windows.num_frames=49 run.num_workers=8"
)

EXIT_EMPTY = 3
MAX_RULES = 8
MOST_FALSE_ACCEPTS = 0.01  # share of co-visible pairs above the threshold from which a person should look


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("manifest", metavar="MANIFEST.csv", type=Path, help="one row per clip")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of the shards")
    parser.add_argument(
        "--retry-quarantined", action="store_true", help="try clips again that failed in an earlier run"
    )
    add_arguments(parser, PrepareConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Prepare; 0 when there are samples, 3 when everything was dropped."""
    from data_prep.flow import prepare
    from jobs.config import load, save
    from jobs.progress import ProgressBar

    places = [f"manifest={_quoted(args.manifest)}", f"output={_quoted(args.output)}"]
    config = load(PrepareConfig, args.config, [*places, *args.overrides])
    with ProgressBar() as progress:
        prepared = prepare(config, progress, retry_quarantined=args.retry_quarantined)
    save(config, prepared.folder)
    sys.stdout.write(_summary(args.output, prepared.facts, prepared.worked))
    return 0 if prepared.facts["num_samples"] else EXIT_EMPTY


def _quoted(path: Path) -> str:
    """A path as a YAML string; OmegaConf would read ``1e3`` as a number and ``a: b`` as a mapping."""
    text = str(path)
    if "${" in text:
        raise InputError(f"path {text!r}: '${{' is how a configuration refers to its keys; rename the file")
    return "'" + text.replace("'", "''") + "'"


def _summary(output: Path, facts: Json, worked: bool) -> str:
    lines = [] if worked else ["Nothing to do: these clips are prepared with this configuration."]
    lines.append(
        f"{facts['num_clips_kept']} of {facts['num_clips']} clips, {facts['num_tracks']} face tracks, "
        f"{facts['num_characters']} characters -> {facts['num_samples']} samples with "
        f"{facts['num_characters_in_samples']} characters"
    )
    lost = sorted(facts["lost_by_rule"].items(), key=lambda item: -item[1])
    if lost:
        lines.append("left out: " + ", ".join(f"{count} {rule}" for rule, count in lost[:MAX_RULES]))
    if facts["num_quarantined"]:
        lines.append(
            f"{facts['num_quarantined']} clips quarantined: the ledger says why and how to try again"
        )
    accepted = facts["calibration"]["false_accept"]
    if accepted is not None and accepted > MOST_FALSE_ACCEPTS:
        lines.append(
            f"warning: {accepted:.1%} of faces seen together pass as one person at cosine "
            f"{facts['calibration']['threshold']:g}; raise link.threshold"
        )
    where = shlex.quote(str(output))
    if facts["num_samples"]:
        lines.append(
            f"in {where}: shard-*.tar, index.jsonl, manifest.json, ledger.parquet, characters.json, faces/"
        )
        lines.append(f"next: castbank report {where} (it lists what was left out and why)")
    else:
        lines.append(f"no sample is left; {where}/ledger.parquet names the rule for every clip and window")
    return "\n".join(lines) + "\n"
