"""A captioner behind an OpenAI-compatible endpoint: /chat/completions of OpenAI, vLLM, SGLang and others."""

from __future__ import annotations

import base64
import email.utils
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from data_prep.captioning.questions import Answer, Question, Reply, UselessError, checked
from data_prep.config import CaptionConfig
from data_prep.records import InputError

INSTRUCTION = """You write training captions for a video model that must keep people apart.
Each picture is one sample. In it, faces are marked with numbered boxes; a number is a person.
Answer with one JSON object and nothing else:
{"samples": [{"people": {"1": "...", "2": "..."}, "scene": "..."}, ...]}, one entry per picture, in order.
people: for every number, at most 25 words on visible looks (hair, clothes, age) and on what the person does, such
as "a woman with short grey hair in a green coat, pouring tea". No names, no places in the picture, no boxes.
scene: at most 50 words on what happens and where. Call people only <person-1>, <person-2> and so on."""

PICTURE_TOKENS = 1500
"""Of a picture below 800 px a side: OpenAI's tiles cost up to 1105, Qwen2.5-VL's patches of 28 px 820."""

CHARS_PER_TOKEN = 2.0
"""English has 4; text in other scripts has fewer, and too high an estimate only stops earlier."""

LONGEST_WAIT_S = 60.0
_AGAIN = (408, 409, 425, 429)


class Endpoint:
    """A Captioner; the prices and patience are the configuration's."""

    def __init__(self, config: CaptionConfig, key: str = "") -> None:
        """``key``: the API key itself, which no configuration holds; empty sends none.

        Raises:
            InputError: the configuration leaves out what asking needs.
        """
        if not config.url.startswith(("http://", "https://")):
            raise InputError(f"captions.url={config.url}: give http://… or https://…, up to and with /v1")
        if not config.model:
            raise InputError("captions.model is empty; give the name that the endpoint knows its model by")
        if config.usd_per_million_in < 0 or config.usd_per_million_out < 0:
            raise InputError(
                "captions.usd_per_million_in and captions.usd_per_million_out: not given, so that captions.max_usd "
                "cannot hold; give the model's prices, 0 for a model of your own"
            )
        self._config, self._key = config, key

    def most_usd(self, questions: Sequence[Question]) -> float:
        chars = len(INSTRUCTION) + sum(len(_text(at, q)) for at, q in enumerate(questions, 1))
        tokens_in = chars / CHARS_PER_TOKEN + PICTURE_TOKENS * len(questions)
        return self._usd(tokens_in, self._config.max_output_tokens * len(questions))

    def __call__(self, questions: Sequence[Question]) -> Reply:
        said = self._ask(questions)
        usage = said.get("usage") or {}
        given = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        numbers = [float(value) for value in given if isinstance(value, int | float)]
        cost_usd = self._usd(*numbers) if len(numbers) == 2 else self.most_usd(questions)
        try:
            samples = _samples(said, len(questions))
        except UselessError as error:
            return Reply((None,) * len(questions), cost_usd, str(error))
        answers: list[Answer | None] = []
        problem = ""
        for question, sample in zip(questions, samples, strict=True):
            try:
                answers.append(checked(sample, question.num_people))
            except UselessError as error:
                answers.append(None)
                problem = str(error)
        return Reply(tuple(answers), cost_usd, problem)

    def _usd(self, tokens_in: float, tokens_out: float) -> float:
        prices = self._config.usd_per_million_in, self._config.usd_per_million_out
        return (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6

    def _ask(self, questions: Sequence[Question]) -> dict[str, Any]:
        """The endpoint's reply, asked again after faults that may pass."""
        config, problem = self._config, ""
        for attempt in range(config.max_attempts):
            try:
                return self._post(questions)
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.reason}: {_body(error)}"
                if error.code < 500 and error.code not in _AGAIN:
                    raise InputError(
                        f"captions.url={config.url}: {problem}; check captions.model, captions.key and the endpoint"
                    ) from error
                asked_s = _retry_after_s(error)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem, asked_s = f"{type(error).__name__}: {error}", 0.0
            if attempt + 1 < config.max_attempts:
                time.sleep(min(max(config.backoff_s * 2**attempt, asked_s), LONGEST_WAIT_S))
        raise InputError(
            f"captions.url={config.url}: {config.max_attempts} attempts failed, the last with {problem[:400]}; "
            "what was answered is kept: run the same command again when the endpoint is well"
        )

    def _post(self, questions: Sequence[Question]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(
            f"{self._config.url.rstrip('/')}/chat/completions",
            data=json.dumps(self._body(questions)).encode(),
            headers=headers,
        )
        with urllib.request.urlopen(request, timeout=self._config.timeout_s) as response:
            said = json.loads(response.read())
        if not isinstance(said, dict):
            raise http.client.HTTPException("the reply is no JSON object")
        return said

    def _body(self, questions: Sequence[Question]) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        for at, question in enumerate(questions, 1):
            picture = base64.b64encode(question.picture).decode()
            content.append({"type": "text", "text": _text(at, question)})
            content.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}})
        return {
            "model": self._config.model,
            "messages": [
                {"role": "system", "content": INSTRUCTION},
                {"role": "user", "content": content},
            ],
            "temperature": 0,
            "max_tokens": self._config.max_output_tokens * len(questions),
            "response_format": {"type": "json_object"},
        }


def _text(at: int, question: Question) -> str:
    known = f" The clip's own description: {question.known}" if question.known else ""
    return f"Picture {at}: {question.num_people} people are marked.{known}"


def _samples(said: dict[str, Any], count: int) -> list[Any]:
    """The entries of a reply. Raises UselessError where it is not one per question."""
    try:
        text = str(said["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError) as error:
        raise UselessError(f"no choices[0].message.content in {str(said)[:120]!r}") from error
    try:
        found = json.loads(text[text.find("{") : text.rfind("}") + 1])  # some put a fence around it
    except (ValueError, RecursionError):
        found = None
    samples = found.get("samples") if isinstance(found, dict) else None
    if not isinstance(samples, list) or len(samples) != count:
        raise UselessError(f"not {count} samples: {text[:120]!r}")
    return samples


def _body(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(2000).decode(errors="replace").split())[:300]
    except OSError:
        return ""


def _retry_after_s(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait, from a number or a date; 0 where it does not say."""
    said = error.headers.get("Retry-After", "")
    try:
        return float(said)
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
