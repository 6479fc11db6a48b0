"""The ``castbank`` command: finds the verb, runs it, and turns what went wrong into one line and an exit code.

Exit codes: 0 done; 1 a bug or a failure of the machine (traceback shown); 2 bad input or configuration; 3 done, but
nothing is left of the input; 75 stopped by SIGTERM or SIGUSR1, run the same command again and it goes on; 130
interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from cluster.spec import JobError
from data_prep.records import InputError
from jobs.stop_signals import interrupted_by_signals

VERBS = {  # name: what --help says; the module of the same name in jobs/ is imported only when its verb runs
    "prepare": "clips to shards: find people, link identities, draw masks, choose references, pack",
    "probe": "what a video file is, and what prepare would do with it",
    "cache": "latents, texts and faces of all samples, computed ahead of training",
    "plan": "what a training needs on each GPU, and what it would fit on",
    "train": "shards to an identity bank: fine-tune a video diffusion transformer, full weights or LoRA",
    "generate": "prompt and cast to a video; many prompts to many",
    "storyboard": "an episode of many shots with a recurring cast, planned and drawn",
    "evaluate": "who is recognisable in a video, and who bled into whom",
    "compare": "several evaluations side by side, and which is better",
    "suite": "published suites: their prompts to generate, their results to read",
    "bank": "list, show, merge and remove the characters of a run",
    "export": "a finished run for diffusers, peft or ComfyUI, read back and compared",
    "report": "shards to one HTML page to look at",
    "submit": "a job file to this machine's queue, Slurm, Ray or Kubernetes",
    "jobs": "list what was submitted, in all places",
    "status": "how one job stands, which rank is where, and what it needs to go on",
    "logs": "what a job has written",
    "cancel": "ask jobs to checkpoint and end",
    "requeue": "let a job that has ended go on",
    "dashboard": "show every run in the browser: an MLflow server",
    "demo": "all of the above on real footage, on this machine, in minutes",
    "proof": "who is who, with and without each part: a tiny model trained from nothing, judged by faces",
    "doctor": "check this machine, or the cluster that jobs are to run on",
    "faces": "install face packs; draw what they see in a picture",
}
EXIT_INPUT, EXIT_AGAIN, EXIT_INTERRUPTED = 2, 75, 130  # 1 is what Python gives for a traceback


class Verb(Protocol):
    """A module in jobs/: adds its arguments to a parser, and does the work."""

    SUMMARY: str

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; ``argv`` defaults to the process's own arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(arguments)
    args, rest = parser.parse_known_args(arguments)
    if any(item.startswith("-") or "=" not in item for item in rest) or not hasattr(args, "overrides"):
        args = parser.parse_args(arguments)  # says what is not recognised
    else:  # argparse does not see key=value arguments that come after an option
        args.overrides = [*args.overrides, *rest]
    if args.verb is None:
        parser.print_help()
        return EXIT_INPUT
    signals: list[int] = []
    try:
        with interrupted_by_signals(signals):
            code: int = args.run(args)
    except (InputError, JobError) as error:
        sys.stderr.write(f"castbank {args.verb}: {error}\n")
        return EXIT_INPUT
    except BrokenPipeError:  # castbank jobs | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end
        return 0
    except KeyboardInterrupt:
        how = f"stopped by {signal.Signals(signals[0]).name}" if signals else "interrupted"
        sys.stderr.write(
            f"\ncastbank {args.verb}: {how}; nothing half-written stays, run it again to go on\n"
        )
        return EXIT_AGAIN if signals else EXIT_INTERRUPTED
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="castbank",
        description="Every character keeps its own face: clips to shards to a multi-character identity bank.",
        epilog="castbank VERB --help says more. Start with: castbank doctor, then castbank demo.",
    )
    parser.add_argument("--version", action="version", version=f"castbank {_version()}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for name, summary in VERBS.items():
        if name != chosen:  # only its line in --help is needed
            verbs.add_parser(name, help=summary)
            continue
        module: Verb = importlib.import_module(f"jobs.{name}")
        child = verbs.add_parser(
            name,
            help=summary,
            description=module.SUMMARY,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(child)
        child.set_defaults(run=module.run)
    return parser


def _version() -> str:
    try:
        return version("castbank")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
