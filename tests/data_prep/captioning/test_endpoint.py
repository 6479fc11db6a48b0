"""A real HTTP server answers as endpoints do, and as they do on bad days."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from data_prep.captioning.endpoint import Endpoint
from data_prep.captioning.questions import Question
from data_prep.config import CaptionConfig
from data_prep.records import InputError
from tests.chat_lab import ChatLab, picture_of, plain, sample

PICTURE = cv2.imencode(".jpg", np.full((96, 160, 3), 90, np.uint8))[1].tobytes()
QUESTIONS = [Question("k1", 2, "Двое говорят.", PICTURE), Question("k2", 1, "", PICTURE)]


def test_one_request_asks_about_several_samples_and_costs_what_the_server_says(
    chat: ChatLab, config: CaptionConfig
) -> None:
    reply = Endpoint(config, "secret")(QUESTIONS)
    assert [answer and answer.people for answer in reply.answers] == [
        ("a person in shirt 1, waving", "a person in shirt 2, waving"),
        ("a person in shirt 1, waving",),
    ]
    assert [answer and answer.scene for answer in reply.answers] == [
        "In picture 1 <person-1> and <person-2> talk",
        "In picture 2 <person-1> talk",
    ]
    assert reply.cost_usd == pytest.approx(1.2)
    (body,) = chat.requests
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("seer", 0, 600)
    assert body["response_format"] == {"type": "json_object"}
    told = body["messages"][1]["content"]
    assert "Двое говорят." in told[0]["text"] and picture_of(told[1]).shape == (96, 160, 3)
    assert chat.keys == ["secret"]


def test_the_most_it_can_cost_is_known_before_and_is_taken_where_nothing_is_said(
    chat: ChatLab, config: CaptionConfig
) -> None:
    endpoint = Endpoint(config)
    assert endpoint.most_usd(QUESTIONS) > endpoint.most_usd(QUESTIONS[:1]) > 1.2
    chat.usage = False
    assert endpoint(QUESTIONS).cost_usd == endpoint.most_usd(QUESTIONS)
    assert chat.keys == [""]


@pytest.mark.parametrize("status", [429, 500, 503, 1])
def test_a_fault_that_passes_is_asked_again(status: int, chat: ChatLab, config: CaptionConfig) -> None:
    chat.script = lambda number, people: status if number < 3 else plain(number, people)
    assert None not in Endpoint(config)(QUESTIONS).answers
    assert len(chat.requests) == 3


@pytest.mark.parametrize("retry_after", ["0.01", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])
def test_a_server_may_say_when_to_come_back(retry_after: str, chat: ChatLab, config: CaptionConfig) -> None:
    chat.retry_after = retry_after
    chat.script = lambda number, people: 429 if number < 2 else plain(number, people)
    assert None not in Endpoint(config)(QUESTIONS).answers


def test_one_that_stays_and_one_that_refuses(chat: ChatLab, config: CaptionConfig) -> None:
    chat.script = lambda number, people: 503
    with pytest.raises(
        InputError, match=r"3 attempts failed, the last with 503 .*scripted 503.*what was answered"
    ):
        Endpoint(config)(QUESTIONS)
    chat.script = lambda number, people: 401
    with pytest.raises(InputError, match=r"401 .*scripted 401.*check captions\.model, captions\.key"):
        Endpoint(config)(QUESTIONS)
    assert len(chat.requests) == 4
    with pytest.raises(InputError, match=r"3 attempts failed, the last with URLError.*refused"):
        Endpoint(replace(config, url="http://127.0.0.1:9/v1"))(QUESTIONS)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("Sorry, I cannot help with that.", "not 2 samples: 'Sorry"),
        ('{"samples": []}', "not 2 samples"),
        ("{" * 5000, "not 2 samples"),
        ("", "not 2 samples: ''"),
    ],
)
def test_chatter_is_no_answer_but_costs(
    said: str, problem: str, chat: ChatLab, config: CaptionConfig
) -> None:
    chat.script = lambda number, people: said
    reply = Endpoint(config)(QUESTIONS)
    assert reply.answers == (None, None) and problem in reply.problem
    assert reply.cost_usd == pytest.approx(1.2)


def test_one_bad_sample_does_not_spoil_the_others_and_fences_are_taken_off(
    chat: ChatLab, config: CaptionConfig
) -> None:
    chat.script = lambda number, people: {"samples": [{"people": {}}, sample(2, 1)]}
    reply = Endpoint(config)(QUESTIONS)
    assert (
        reply.answers[0] is None and reply.answers[1] is not None and "people.1 is no text" in reply.problem
    )
    chat.script = lambda number, people: f"```json\n{str(plain(1, people)).replace(chr(39), chr(34))}\n```"
    assert None not in Endpoint(config)(QUESTIONS).answers


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: replace(c, url="api.example/v1"), r"captions\.url=api\.example/v1: give http"),
        (lambda c: replace(c, model=""), r"captions\.model is empty"),
        (
            lambda c: replace(c, usd_per_million_in=-1.0),
            r"cannot hold; give the model's prices, 0 for a model of",
        ),
    ],
)
def test_what_asking_needs(
    spoil: Callable[[CaptionConfig], CaptionConfig], message: str, config: CaptionConfig
) -> None:
    with pytest.raises(InputError, match=message):
        Endpoint(spoil(config))
