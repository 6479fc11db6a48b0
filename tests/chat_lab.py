"""An OpenAI-compatible endpoint on a loopback port: it reads what it is sent as OpenAI's would, answers as told."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

TOKENS_IN, TOKENS_OUT = 1000, 100  # of every reply

Sample = dict[str, Any]
Script = Callable[[int, list[int]], "Sample | str | int"]
"""(number of the request from 1, people in each picture) → a message's content, or an HTTP status."""


def plain(number: int, people: list[int]) -> Sample:
    """A good answer that says which picture and which slot it is about."""
    return {"samples": [sample(at, count) for at, count in enumerate(people, 1)]}


def sample(at: int, count: int) -> Sample:
    clauses = {str(slot): f"a person in shirt {slot}, waving." for slot in range(1, count + 1)}
    tokens = " and ".join(f"<person-{slot}>" for slot in range(1, count + 1))
    return {"people": clauses, "scene": f"In picture {at} {tokens} talk"}


@dataclass
class ChatLab:
    """url: up to and with /v1; script: how it answers, to be changed; requests: the bodies that came; keys: what
    stood behind Bearer; most_at_once: requests that were answered beside each other."""

    url: str = ""
    script: Script = plain
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    retry_after: str = ""
    usage: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.requests.append(body)
            self.keys.append(key)
            number = len(self.requests)
        content = body["messages"][1]["content"]
        people = [int(re.findall(r": (\d+) people", part["text"])[0]) for part in content[::2]]
        for part in content[1::2]:
            assert picture_of(part).shape[2] == 3
        said = self.script(number, people)
        if isinstance(said, int):
            return said, {"error": {"message": f"scripted {said}"}}
        text = said if isinstance(said, str) else json.dumps(said)
        usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT}
        return 200, {"choices": [{"message": {"content": text}}], **({"usage": usage} if self.usage else {})}


def picture_of(part: dict[str, Any]) -> np.ndarray:
    """u8[H,W,3] BGR of a part of a message."""
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image)


@contextmanager
def chat_lab() -> Iterator[ChatLab]:
    lab = ChatLab()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path != "/v1/chat/completions":
                self.send_error(404)
                return
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, said = lab.answer(body, key)
            if status == 1:  # hang up
                return
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if lab.retry_after:
                self.send_header("Retry-After", lab.retry_after)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    lab.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield lab
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
