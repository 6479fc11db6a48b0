"""Prompts become captions of their first frame: by rules, by a text model on disk, by an endpoint that answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data_prep.records import InputError
from pipeline.config import StrategyConfig
from pipeline.strategies import rewriters
from pipeline.strategies.rewriters import INSTRUCTION, REWRITERS, by_rules


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("Anna talks to Ben in a cafe.", "Anna talks to Ben in a cafe."),
        ("Anna sits at a table, then she slowly stands up.", "Anna sits at a table."),
        ("Anna waves. Then Ben comes in. Finally they leave.", "Anna waves."),
        ("The camera pans to the left. Anna smiles", "Anna smiles."),
        ("Anna reads before closing the book. Rain falls.", "Anna reads. Rain falls."),
        ("A slow shot zooms in on Anna. She waits until Ben comes!", "She waits!"),
        (
            "<person-1> is the person on the left: a man, waving. Later he goes.",
            "<person-1> is the person on the left: a man, waving.",
        ),
        ("Then they run.", "Then they run."),
        ("Authentic scenes from Zthen.", "Authentic scenes from Zthen."),
    ],
)
def test_rules_keep_what_the_first_frame_shows(prompt: str, caption: str) -> None:
    assert by_rules(prompt) == caption
    assert by_rules(caption) == caption  # once is enough


class Server(ThreadingHTTPServer):
    """answers: status and body of each request in turn; the requests that came."""

    answers: list[tuple[int, Any]]
    came: list[tuple[str, str, dict[str, Any]]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.came.append((self.path, self.headers.get("Authorization", ""), body))
        status, said = self.server.answers.pop(0)
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.answers, made.came = [], []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def reply(text: str) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"content": text}}]}


def endpoint(server: Server) -> rewriters.Rewriter:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1/"
    config = StrategyConfig(rewriter="endpoint", rewriter_url=url, rewriter_model="qwen")
    return REWRITERS["endpoint"](config, "s3cret")


def test_an_endpoint_is_asked_as_openais_is(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriters, "WAIT_S", 0.0)
    server.answers = [(503, {}), (200, {"choices": []}), reply("Anna stands.")]
    assert endpoint(server)("Anna stands, then sits.") == "Anna stands."
    assert len(server.came) == 3
    path, key, body = server.came[-1]
    assert path == "/v1/chat/completions" and key == "Bearer s3cret"
    assert body["model"] == "qwen" and body["temperature"] == 0
    assert [m["content"] for m in body["messages"]] == [INSTRUCTION, "Anna stands, then sits."]


def test_an_endpoint_that_refuses_is_named_and_not_asked_again(server: Server) -> None:
    server.answers = [(401, {})]
    with pytest.raises(InputError, match=r"strategy\.rewriter_url=.*401.*strategy\.rewriter_key") as raised:
        endpoint(server)("Anna.")
    assert len(server.came) == 1 and "s3cret" not in str(raised.value)


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match=r"strategy\.rewriter_url=empty: give http"):
        REWRITERS["endpoint"](StrategyConfig(rewriter="endpoint"), "")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "chat"])
def text_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 of a few thousand parameters as published ones lie, with and without chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<|end|>", *letters])}
    raw = Tokenizer(models.BPE(vocabulary, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<|end|>")
    if request.param:
        tokenizer.chat_template = (
            "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}"
        )
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=len(vocabulary), num_key_value_heads=1, eos_token_id=0, **sizes)
    folder = tmp_path_factory.mktemp("text") / "model"
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_text_model_on_disk_answers_as_its_own_greedy_search(text_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ask = REWRITERS["transformers"](StrategyConfig(rewriter_model=str(text_model)), "")
    answer = ask("Anna sits.")
    tokenizer: Any = AutoTokenizer.from_pretrained(text_model)
    model: Any = AutoModelForCausalLM.from_pretrained(text_model)
    asked = f"{INSTRUCTION}\n\nPrompt: Anna sits.\nCaption:"
    if tokenizer.chat_template:
        asked = f"[system]{INSTRUCTION}[user]Anna sits.[assistant]"
    tokens, found = tokenizer(asked, return_tensors="pt")["input_ids"], []
    with torch.no_grad():
        for _ in range(rewriters.NUM_TOKENS):
            best = int(model(tokens).logits[0, -1].argmax())
            if best == 0:
                break
            found.append(best)
            tokens = torch.cat([tokens, torch.tensor([[best]])], 1)
    assert answer == tokenizer.decode(found)


def test_a_text_model_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"strategy\.rewriter_model=.*strategy\.rewriter=rules"):
        REWRITERS["transformers"](StrategyConfig(rewriter_model=str(tmp_path)), "")("Anna.")
