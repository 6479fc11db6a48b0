"""Captions for all samples: which are to be asked about, asked a few at a time, and what becomes of the answers.

A sample about which no usable answer comes keeps the captions it has, with a line in the ledger; too many of those,
or the cap on cost, end the run. Whatever was answered stays, so that the same command goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.captioning.answers import Answers
from data_prep.captioning.budget import Budget
from data_prep.captioning.questions import Answer, Captioner, Question, picture
from data_prep.config import CaptionConfig
from data_prep.decode import decode_mp4
from data_prep.records import Decision, InputError, Progress, digest
from data_prep.running.fingerprints import CAPTION_RECIPE
from data_prep.running.work import ClipWork
from data_prep.selection.captions import told_sentence, training_caption
from data_prep.selection.samples import Plan

CAPTIONS = ".captions"  # what was paid for does not lie with what can be made again
AT_ONCE = 64
"""Batches that are prepared ahead: a picture is 50 kB, and decoding one waits for no answer."""


@dataclass(frozen=True)
class _Asked:
    """What came of one batch: per sample its plan and its answer, or what was wrong with it."""

    plan: Plan
    answer: Answer | None
    problem: str = ""


def recaption(
    plans: Sequence[Plan],
    works: Mapping[str, ClipWork],
    captioner: Captioner,
    config: CaptionConfig,
    cache: Path,
    on_progress: Progress,
) -> tuple[list[Plan], list[Decision]]:
    """The plans with captions that say who is who, and a decision for each that stays as it was.

    ``works``: by clip id, where windows are read from; ``cache``: the file of answers.

    Raises:
        InputError: the cap on cost, an endpoint that refuses or never answers, or too many useless answers.
    """
    answers = Answers(cache)
    budget = Budget(config.max_usd, answers.spent_usd)
    keys = {plan.note.key: question_key(plan, works[plan.note.clip_id].key, config.model) for plan in plans}
    told = {plan.note.key: answers.get(keys[plan.note.key]) for plan in plans}
    problems: dict[str, str] = {}
    missing = [plan for plan in plans if told[plan.note.key] is None]
    on_progress("caption", len(plans) - len(missing), len(plans))
    desk = _Desk(works, captioner, answers, budget, keys)
    for asked in _asked(missing, desk, config):
        told[asked.plan.note.key] = asked.answer
        if asked.answer is None:
            problems[asked.plan.note.key] = asked.problem
        on_progress("caption", sum(answer is not None for answer in told.values()), len(plans))
    _refuse_many(problems, len(plans), config)
    made = [_told(plan, answer) if (answer := told[plan.note.key]) else plan for plan in plans]
    return made, [_kept_plain(key, problem) for key, problem in sorted(problems.items())]


def question_key(plan: Plan, analysis: str, model: str) -> str:
    """What an answer depends on, known without the picture; analysis: the key of the clip's analysis."""
    known = [plan.note.window, plan.slots, plan.caption]
    return digest([CAPTION_RECIPE, model, analysis, *known])


@dataclass(frozen=True)
class _Desk:
    """What every thread that asks works with."""

    works: Mapping[str, ClipWork]
    captioner: Captioner
    answers: Answers
    budget: Budget
    keys: Mapping[str, str]

    def ask(self, batch: Sequence[tuple[Plan, Question]], attempts: int) -> list[_Asked]:
        """Ask about a batch; about what had no usable answer again, one at a time."""
        found = self._once(batch)
        again = [pair for pair, asked in zip(batch, found, strict=True) if asked.answer is None]
        rest = {asked.plan.note.key: asked for asked in found}
        for pair in again:
            for _ in range(attempts - 1):
                (asked,) = self._once([pair])
                rest[asked.plan.note.key] = asked
                if asked.answer is not None:
                    break
        return list(rest.values())

    def _once(self, batch: Sequence[tuple[Plan, Question]]) -> list[_Asked]:
        questions = [question for _, question in batch]
        most_usd = self.captioner.most_usd(questions)
        self.budget.hold(most_usd)
        cost_usd = 0.0
        try:
            reply = self.captioner(questions)
            cost_usd = reply.cost_usd
        finally:
            self.budget.settle(most_usd, cost_usd)
        for (plan, _), answer in zip(batch, reply.answers, strict=True):
            self.answers.add(self.keys[plan.note.key], answer, cost_usd / len(batch))
        return [
            _Asked(plan, answer, "" if answer else reply.problem)
            for (plan, _), answer in zip(batch, reply.answers, strict=True)
        ]


def _asked(plans: Sequence[Plan], desk: _Desk, config: CaptionConfig) -> Iterator[_Asked]:
    """Ask about all plans, several batches at once, with no more pictures in memory than are asked about soon."""
    size = config.samples_per_request
    batches = [plans[at : at + size] for at in range(0, len(plans), size)]
    with ThreadPoolExecutor(config.num_parallel) as threads:
        try:
            for at in range(0, len(batches), AT_ONCE):
                questions = [_questions(batch, desk.works) for batch in batches[at : at + AT_ONCE]]
                running = [threads.submit(desk.ask, batch, config.max_attempts) for batch in questions]
                for done in as_completed(running):
                    yield from done.result()
        finally:  # stopped: what is not begun is not asked
            threads.shutdown(wait=False, cancel_futures=True)


def _questions(plans: Sequence[Plan], works: Mapping[str, ClipWork]) -> list[tuple[Plan, Question]]:
    made = []
    for plan in plans:
        note = plan.note
        windows = works[note.clip_id].load(windows=True).windows
        video = decode_mp4(next(window for window in windows if window.index == note.window).mp4)
        known = note.captions.detailed or note.captions.summarized or note.captions.brief
        made.append((plan, Question(note.key, len(note.cast), known, picture(video, note))))
    return made


def _told(plan: Plan, answer: Answer) -> Plan:
    """The plan with what was answered in its sentences, its caption and, where it had none, its brief field."""
    note = plan.note
    cast = tuple(
        replace(member, sentence=told_sentence(member.sentence, words))
        for member, words in zip(note.cast, answer.people, strict=True)
    )
    sentences = [member.sentence for member in cast]
    caption = training_caption(sentences, replace(note.captions, brief=answer.scene))
    captions = note.captions if note.captions.brief else replace(note.captions, brief=answer.scene)
    return replace(plan, note=replace(note, cast=cast, captions=captions), caption=caption)


def _kept_plain(key: str, problem: str) -> Decision:
    return Decision(key, "sample", "kept", "caption", "no_usable_answer", detail=problem)


def _refuse_many(problems: Mapping[str, str], num_samples: int, config: CaptionConfig) -> None:
    if len(problems) > config.max_failed * num_samples:
        key, problem = min(problems.items())
        raise InputError(
            f"captions.max_failed: of {num_samples} samples {len(problems)} got no usable answer, allowed are "
            f"{config.max_failed * num_samples:g}; the first is {key}: {problem}; try another captions.model"
        )
