"""From a prompt to the caption of its first frame: by rules, by a text model here, or by one behind an endpoint."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data_prep.records import InputError
from pipeline.config import StrategyConfig

Rewriter = Callable[[str], str]
"""A prompt of a video to the caption of its first frame."""

INSTRUCTION = """You turn the prompt of a video into the caption of its first frame, a still picture. Keep who is
there, how each looks, where each is, the place, the light and the style. Describe the state in which the action
begins; leave out what happens later, and movements of the camera. Keep names and tokens such as <person-1>.
Answer with the caption alone, in one paragraph of at most 80 words."""

LATER = re.compile(
    r"[,;]?\s*\b(?:and\s+|but\s+)?(?:then|afterwards?|after\s+(?:that|which|a\s+while)|later|finally|eventually|"
    r"before\s+\w+ing|until|as\s+soon\s+as|at\s+last|in\s+the\s+end)\b.*?(?=[.!?]?$)",
    re.IGNORECASE | re.DOTALL,
)
NEXT = re.compile(
    r"^(?:and\s+)?(?:then|next|afterwards?|after|later|finally|eventually|suddenly)\b", re.IGNORECASE
)
CAMERA = re.compile(
    r"\b(?:camera|shot|view|scene|frame|lens)\b[^.!?]*\b(?:pan|zoom|tilt|track|doll|truck|mov|follow|rotat|orbit|"
    r"circl|pull|push|cut|fade|transition)\w*",
    re.IGNORECASE,
)
PACE = re.compile(
    r"\s*\b(?:slowly|gradually|suddenly|quickly|gently|continuously|repeatedly)\b", re.IGNORECASE
)
NUM_TOKENS = 200  # of an answer, at most
TIMEOUT_S, ATTEMPTS, WAIT_S = 120.0, 3, 1.0  # of one request; how often it is made; between the first two


def by_rules(prompt: str) -> str:
    """The embedded rewriter, ours, deterministic: sentences of later events and of the camera are dropped, and so
    is the part of a sentence that comes after another (``then``, ``before``, ``until`` ...) and words of pace."""
    kept = []
    for sentence in re.split(r"(?<=[.!?])\s+", prompt.strip()):
        if NEXT.search(sentence) or CAMERA.search(sentence):
            continue
        still = PACE.sub("", LATER.sub("", sentence)).strip()
        if re.search(r"\w", still):
            kept.append(still if still[-1] in ".!?" else f"{still}.")
    return " ".join(kept) or prompt.strip()


@dataclass(frozen=True)
class TextModel:
    """A chat model of transformers, read when it is asked and dropped after: the video's needs the memory."""

    name: str

    def __call__(self, prompt: str) -> str:
        """Greedy, so that the answer is the same each time."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(self.name)
            model: Any = AutoModelForCausalLM.from_pretrained(self.name, dtype="auto").to(device).eval()
        except (OSError, ValueError) as error:
            raise InputError(
                f"strategy.rewriter_model={self.name}: {str(error).splitlines()[0]}; give the hub id or folder of "
                "a text model, or strategy.rewriter=rules"
            ) from error
        asked = _asked(tokenizer, prompt).to(device)
        with torch.no_grad():
            said = model.generate(**asked, do_sample=False, max_new_tokens=NUM_TOKENS)
        answer: str = tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        return answer


def _asked(tokenizer: Any, prompt: str) -> Any:
    """The question in tokens, by the model's own chat template where it has one."""
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(_messages(prompt), tokenize=False, add_generation_prompt=True)
    else:
        text = f"{INSTRUCTION}\n\nPrompt: {prompt}\nCaption:"
    return tokenizer(text, return_tensors="pt")


@dataclass(frozen=True)
class Endpoint:
    """A text model behind an OpenAI-compatible endpoint: OpenAI's, vLLM's, SGLang's and others'."""

    url: str
    model: str
    key: str = ""

    def __call__(self, prompt: str) -> str:
        """At temperature 0; asked again where the fault may pass. Raises InputError where it does not."""
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(WAIT_S * 2 ** (attempt - 1))
            try:
                return str(self._post(prompt)["choices"][0]["message"]["content"])
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.reason}"
                if error.code < 500 and error.code not in (408, 409, 425, 429):
                    break
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
        raise InputError(
            f"strategy.rewriter_url={self.url}: {problem}; check strategy.rewriter_model, strategy.rewriter_key "
            "and the endpoint, or take strategy.rewriter=rules"
        )

    def _post(self, prompt: str) -> Any:
        body = {
            "model": self.model,
            "messages": _messages(prompt),
            "temperature": 0,
            "max_tokens": NUM_TOKENS,
        }
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.loads(response.read())


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": prompt}]


def _endpoint(config: StrategyConfig, key: str) -> Rewriter:
    if not config.rewriter_url.startswith(("http://", "https://")):
        raise InputError(
            f"strategy.rewriter_url={config.rewriter_url or 'empty'}: give http://... or https://..., up to and "
            "with /v1, or strategy.rewriter=rules"
        )
    return Endpoint(config.rewriter_url, config.rewriter_model, key)


REWRITERS: dict[str, Callable[[StrategyConfig, str], Rewriter]] = {
    "rules": lambda config, key: by_rules,
    "transformers": lambda config, key: TextModel(config.rewriter_model),
    "endpoint": _endpoint,
}
