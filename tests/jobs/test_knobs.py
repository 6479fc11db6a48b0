"""Help lists every key of a schema with its default and its comment."""

from __future__ import annotations

import re

from data_prep.config import PrepareConfig
from jobs import config, knobs
from pipeline.config import GenerateConfig, TrainConfig


def test_every_key_is_listed_with_default_and_reason() -> None:
    for schema in (PrepareConfig, TrainConfig, GenerateConfig):
        listed = [
            line.split(" = ")[0].strip() for line in knobs.describe(schema).splitlines() if " = " in line
        ]
        sections = {key.rsplit(".", 1)[0] for key in config.keys(schema) if "." in key}
        assert set(config.keys(schema)) - sections <= set(listed)
    text = knobs.describe(PrepareConfig)
    assert "windows.num_frames = 17" in text
    assert "manifest = (must be given)" in text
    assert "cosine; 0 takes the pack's own" in " ".join(text.split())
    assert "model.adapter.kind = full (full|lora|none)" in knobs.describe(TrainConfig)


def test_no_default_shows_how_python_stores_it() -> None:
    assert "names = {}" in knobs.describe(TrainConfig)
    assert "object at" not in knobs.describe(TrainConfig)


def test_a_reason_may_stand_above_the_declaration_and_defaults_are_as_one_gives_them() -> None:
    text = " ".join(knobs.describe(TrainConfig).split())
    assert "data.buckets = [] FRAMESxHEIGHTxWIDTH (pixels), such as" in text
    assert "model.adapter.targets = [to_q, to_k, to_v, to_out.0] linear layers" in text
    assert "model.adapter.train_identity = true encoder" in text


def test_every_knob_of_training_has_a_reason() -> None:
    entries = re.split(r"\n(?=  \S)", knobs.describe(TrainConfig))
    assert not [entry for entry in entries if "\n" not in entry and entry[knobs.KEY_WIDTH - 1 :][:1] != " "]
