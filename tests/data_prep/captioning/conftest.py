"""An endpoint for each test, and a configuration that leads to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from data_prep.config import CaptionConfig
from tests.chat_lab import ChatLab, chat_lab


@pytest.fixture
def chat() -> Iterator[ChatLab]:
    with chat_lab() as made:
        yield made


@pytest.fixture
def config(chat: ChatLab) -> CaptionConfig:
    return CaptionConfig(
        url=chat.url,
        model="seer",
        usd_per_million_in=1000.0,  # a reply costs $ 1 for what was sent, and 0.2 for what came
        usd_per_million_out=2000.0,
        max_usd=1000.0,
        samples_per_request=3,
        num_parallel=2,
        max_attempts=3,
        backoff_s=0.001,
        max_failed=0.5,
    )
