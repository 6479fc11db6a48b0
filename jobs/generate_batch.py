"""Many videos of one run: a JSON object a line, or the shots of a story, drawn by workers on Ray, each once."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.records import InputError
from jobs import config as configs
from jobs.drawing import Request, check_request, draw, is_done, open_run
from jobs.generate import check_config
from jobs.outputs import check_folder
from jobs.progress import ProgressBar
from pipeline.config import GenerateConfig
from pipeline.generating import limits

if TYPE_CHECKING:
    from pipeline.generate import LoadedRun

PREVIOUS = "previous"
FIELDS = ("prompt", "cast", "output", "references", "layout", "anchor")
MAX_ATTEMPTS = 2  # of videos whose process dies
TIMEOUT_S = 24 * 3600.0  # of a chain of videos; the first of a worker also loads the model


@dataclass(frozen=True)
class Chain:
    """Videos that one worker draws one after the other, as each begins where the one before ended."""

    requests: tuple[Request, ...]


def draw_file(args: argparse.Namespace, config: GenerateConfig) -> int:
    """Draw the lines of ``args.prompts``; 0, or 1 where some could not be drawn."""
    given = {"--prompt": args.prompt, "--cast": args.cast, "--layout": args.layout, "--anchor": args.anchor}
    if beside := [option for option, value in {**given, "--reference": args.reference}.items() if value]:
        raise InputError(f"{', '.join(beside)}: came beside --prompts; each line of the file says its own")
    folder = (args.output or Path("generated")).absolute()
    requests = read_requests(args.prompts, args.run_folder, args.bank, folder, config)
    return draw_all(requests, args.workers, folder)


def read_requests(
    file: Path, run: Path, bank: Path | None, folder: Path, config: GenerateConfig
) -> list[Request]:
    """The videos that a file asks for, a JSON object a line; raises InputError naming the line that is wrong.

    Paths in it are relative to its own folder, and outputs to ``folder``; keys of the configuration go over
    ``config``.
    """
    if not file.is_file():
        raise InputError(
            f"--prompts: {str(file)!r} is not a file; give a JSON object a line, with prompt and cast"
        )
    base = Request(run.absolute(), "", (), folder, config, None if bank is None else bank.absolute())
    requests: list[Request] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                requests.append(_read_line(line, base, file.parent.absolute(), requests))
            except InputError as error:
                raise InputError(f"--prompts: {file}, line {number}: {error}") from error
    return _linked(requests)


def check_all(requests: Sequence[Request]) -> None:
    """Raise InputError for what no worker could draw, before any model is loaded."""
    from pipeline.identity.bank import IdentityBank, find_bank

    if not requests:
        raise InputError("--prompts: nothing is asked for; give a line for each video")
    first = requests[0]
    outline, max_cast = limits.outline_of(first.run)
    known = list(IdentityBank.load(find_bank(first.bank or first.run)).entries)
    outputs: dict[Path, Request] = {}
    for request in requests:
        if request.output in outputs:
            raise InputError(
                f"output: {request.output} is asked for twice; give each video a name of its own"
            )
        outputs[request.output] = request
        try:
            check_request(request)
            check_config(request.config)
            limits.check_size(request.config, outline)
            limits.check_cast(request.names, [*known, *(name for name, _ in request.references)], max_cast)
            if request.anchor is not None:
                limits.check_anchor(outline)
        except InputError as error:
            raise InputError(f"{request.output.name}: {error}") from error


def draw_all(requests: Sequence[Request], num_workers: int, folder: Path) -> int:
    """Draw what is not there yet, each chain by a worker that loads the model once; 0, or 1 where some failed."""
    from data_prep.running.isolation import Failure, Limits, Task, Workers

    if num_workers < 0:
        raise InputError(f"--workers: came {num_workers}; give 0 for one per core, or a number of processes")
    check_all(requests)
    check_folder("--output", folder)
    folder.mkdir(parents=True, exist_ok=True)
    done = [request for request in requests if is_done(request)]
    chains = [rest for chain in _chains(requests) if (rest := _rest(chain, done)).requests]
    tasks = [Task(f"video-{number:06d}", chain) for number, chain in enumerate(chains)]
    drawn, failures = len(done), []
    with ProgressBar() as progress, tempfile.TemporaryDirectory(dir=folder, prefix=".log-") as logs:
        progress("videos", drawn, len(requests))
        with Workers(min(num_workers, len(tasks)) if num_workers else 0) as workers:
            all_of_them = workers.run(
                draw_chain, tasks, Limits(MAX_ATTEMPTS, TIMEOUT_S), Path(logs), on_gpu=True
            )
            for task, result in all_of_them:
                if isinstance(result, Failure):
                    failures.append((task.item, result))
                    continue
                drawn += len(task.item.requests)
                progress("videos", drawn, len(requests))
    for chain, failure in failures:
        names = ", ".join(request.output.name for request in chain.requests)
        sys.stderr.write(f"{names}: {failure.error_class}\n{failure.detail}\n")
    new = f"{drawn - len(done)} drawn, {len(done)} were there"
    sys.stdout.write(f"{folder}: {new}, {len(requests) - drawn} failed\n")
    return 1 if failures else 0


def draw_chain(chain: Chain) -> int:
    """In a worker: draw one after the other; how many were drawn, as those of an earlier attempt stay."""
    drawn = 0
    for request in chain.requests:
        if not is_done(request):
            draw(_opened(request.run, request.bank), request, lambda *_: None)
            drawn += 1
    return drawn


@lru_cache(maxsize=1)
def _opened(run: Path, bank: Path | None) -> LoadedRun:
    return open_run(run, bank)


def _chains(requests: Sequence[Request]) -> Iterator[Chain]:
    """Neighbours of which one begins with the last frame of the one before, together."""
    some: list[Request] = []
    for request in requests:
        if some and request.anchor != some[-1].last_frame:
            yield Chain(tuple(some))
            some = []
        some.append(request)
    if some:
        yield Chain(tuple(some))


def _rest(chain: Chain, done: Sequence[Request]) -> Chain:
    """What of a chain is to be drawn: from the first that is not there, as what follows begins with its end."""
    there = 0
    while there < len(chain.requests) and chain.requests[there] in done:
        there += 1
    return Chain(chain.requests[there:])


def _linked(requests: Sequence[Request]) -> list[Request]:
    """The same, with those keeping their last frame that the next begins with."""
    following = [request.anchor for request in requests[1:]] + [None]
    return [
        dataclasses.replace(request, keep_last=request.last_frame == anchor)
        for request, anchor in zip(requests, following, strict=True)
    ]


def _read_line(line: str, base: Request, place: Path, before: Sequence[Request]) -> Request:
    try:
        read = json.loads(line)
    except ValueError as error:
        raise InputError(f"not JSON ({error})") from error
    if not isinstance(read, dict) or not isinstance(read.get("prompt"), str):
        raise InputError(
            'a line is an object with a prompt, such as {"prompt": "anna waves", "cast": ["anna"]}'
        )
    config = _config(base.config, {key: value for key, value in read.items() if key not in FIELDS})
    output = base.output / read.get("output", f"{len(before):06d}.mp4")
    if output.suffix != ".mp4" or base.output not in output.resolve().parents:
        raise InputError(
            f"output: {read.get('output')!r}; give a file name in {base.output} that ends in .mp4"
        )
    return dataclasses.replace(
        base,
        prompt=read["prompt"],
        cast=_names(read.get("cast", [])),
        output=output,
        config=config,
        references=_references(read.get("references", {}), place),
        layout=place / read["layout"] if read.get("layout") else None,
        anchor=_anchor(read.get("anchor"), place, before),
    )


def _config(config: GenerateConfig, keys: dict[str, Any]) -> GenerateConfig:
    known = {*configs.keys(GenerateConfig)}
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, [*known, *FIELDS], 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"{key}: no such field; {hint}there are {', '.join(FIELDS)} and the keys of --help"
            )
    usual = {key: value for key, value in dataclasses.asdict(config).items()}
    return configs.load(
        GenerateConfig, None, [f"{key}={json.dumps(value)}" for key, value in keys.items()], usual
    )


def _names(cast: Any) -> tuple[str, ...]:
    if not isinstance(cast, list) or not all(isinstance(name, str) for name in cast):
        raise InputError(f"cast: came {cast!r}; give a list of names")
    return tuple(cast)


def _references(read: Any, place: Path) -> tuple[tuple[str, Path], ...]:
    if not isinstance(read, dict) or not all(isinstance(some, list) for some in read.values()):
        raise InputError(f"references: came {read!r}; give an object of lists, {{NAME: [PICTURE, ...]}}")
    return tuple((name, place / str(path)) for name, some in read.items() for path in some)


def _anchor(given: Any, place: Path, before: Sequence[Request]) -> Path | None:
    if given == PREVIOUS:
        if not before:
            raise InputError(f"anchor: {PREVIOUS!r} came in the first line, which has none before it")
        return before[-1].last_frame
    return place / str(given) if given else None
