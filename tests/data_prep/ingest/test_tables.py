"""CSV, JSON lines and Parquet of the same clips are the same rows; each one's own mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from data_prep.config import IngestConfig
from data_prep.ingest.storage import Storage
from data_prep.ingest.tables import READERS
from data_prep.records import Clip, InputError

STORAGE = Storage(IngestConfig())
ROWS: list[dict[str, Any]] = [
    {
        "clip_id": f"{name}.mp4",
        "url": "film",
        "fps": 29.97,
        "frame_width": 3840,
        "frame_height": 2160,
        "start_time": 10.5 * at,
        "end_time": 10.5 * at + 5,
        "Brief Description": caption,
        "Theme Description": None if at else "山",
        "clip_embedding": "ignored",
    }
    for at, (name, caption) in enumerate(
        [
            ("a", 'Anna, "waves"'),
            ("b", "Анна машет"),
            ("c", "안나가\n손을 흔든다"),
            ("d", "アンナが手を振る 👋"),
        ]
    )
]


def written(folder: Path, ending: str, rows: list[dict[str, Any]] = ROWS) -> str:
    path = folder / f"table{ending}"
    if ending == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=3)
    else:
        path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return str(path)


def clips(place: str) -> list[Clip]:
    return [row.clip(row.clip_id(), "/x") for row in READERS["." + place.rpartition(".")[2]](STORAGE, place)]


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".parquet"])
def test_a_table_is_the_same_whatever_it_is_kept_in(ending: str, tmp_path: Path) -> None:
    expected = clips(written(tmp_path, ".csv"))
    assert [clip.captions.brief for clip in expected] == [row["Brief Description"] for row in ROWS]
    assert clips(written(tmp_path, ending)) == expected


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_captions_as_an_object_of_their_own(ending: str, tmp_path: Path) -> None:
    nested = [
        {
            **{name: value for name, value in row.items() if "Description" not in name},
            "captions": {"brief": row["Brief Description"], "theme": row["Theme Description"]},
        }
        for row in ROWS
    ]
    assert clips(written(tmp_path, ending, nested)) == clips(written(tmp_path, ".csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"clip_id": "a.mp4"', r"line 1: not JSON \(.*\); an object is wanted"),
        ("[1]", "line 1: a JSON list; an object with names and values is wanted"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"clip_id": "a.mp4"}', "line 1: column 'url' is missing; found clip_id"),
        ("\n\n{}", "line 3: column 'clip_id' is missing"),
    ],
)
def test_a_line_that_is_no_clip(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "table.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        clips(str(tmp_path / "table.jsonl"))


def test_bytes_that_are_no_table(tmp_path: Path) -> None:
    for ending, message in ((".parquet", "not a whole Parquet file"), (".jsonl", "not UTF-8 text")):
        (tmp_path / f"x{ending}").write_bytes(b"\xff\xfePAR1" + bytes(100))
        with pytest.raises(InputError, match=message):
            clips(str(tmp_path / f"x{ending}"))
    renamed = [{"clip_ids" if name == "clip_id" else name: v for name, v in row.items()} for row in ROWS]
    with pytest.raises(InputError, match="'clip_id' is missing; did you mean 'clip_ids'"):
        clips(written(tmp_path, ".parquet", renamed))
