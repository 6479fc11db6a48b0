"""``castbank prepare`` on real footage, and what it says to wrong input."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep import ledger
from jobs.__main__ import main

WANTED = ("cafe-01.mp4", "cafe-02.mp4", "cafe-03.mp4", "meadow-01.mp4")
"""Three clips of one source, in which three people meet two by two, and one without a face."""


ENDINGS = (".tar", ".jsonl", ".json", ".parquet")  # what does not name the folder it lies in


@pytest.fixture(scope="module")
def corpus(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wanted clips, one cut off in the middle and one that is absent."""
    folder = tmp_path_factory.mktemp("corpus")
    with (footage / "short.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["clip_id"] in WANTED]
    for row in rows:
        shutil.copy(footage / "clips" / row["clip_id"], folder / row["clip_id"])
    whole = (footage / "clips" / WANTED[0]).read_bytes()
    (folder / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    rows += [{**rows[0], "clip_id": "torn.mp4"}, {**rows[0], "clip_id": "absent.mp4"}]
    with (folder / "short.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def castbank(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    root = Path(__file__).parent.parent.parent
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture(scope="module")
def prepared(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The shards of the corpus and what the command printed."""
    output = tmp_path_factory.mktemp("prepared") / "shards"
    done = castbank("prepare", corpus / "short.csv", "--output", output, "pack.samples_per_shard=4")
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def read_samples(output: Path) -> list[dict[str, Any]]:
    """Every sample by plain webdataset."""
    import webdataset

    urls = [str(path) for path in sorted(output.glob("*.tar"))]
    return list(webdataset.WebDataset(urls, shardshuffle=False))


def test_the_summary_tells_what_came_of_every_clip(prepared: tuple[Path, str]) -> None:
    output, said = prepared
    assert "3 of 6 clips" in said
    assert "3 characters" in said
    assert f"next: castbank report {output}" in said
    fates = {d.item: d for d in ledger.read(output / "ledger.parquet") if d.kind == "clip"}
    assert fates["meadow-01"].rule == "no_face"
    assert fates["absent"].rule == "file_missing"
    assert fates["torn"].fate == "dropped"
    assert fates["torn"].rule in {"unreadable", "truncated"}
    assert fates["cafe-01"].fate == "kept"


def test_no_reference_comes_from_the_frames_trained_on(prepared: tuple[Path, str]) -> None:
    notes = [json.loads(sample["json"]) for sample in read_samples(prepared[0])]
    assert notes
    for note in notes:
        assert len(note["cast"]) == len(note["references"]) >= 1
        for member, references in zip(note["cast"], note["references"], strict=True):
            assert 3 <= len(references) <= 5
            for reference in references:
                assert reference["character_id"] == member["character_id"]
                assert reference["clip_id"] != note["clip_id"] or not (
                    note["frames"][0] <= reference["frame"] <= note["frames"][-1]
                )


def test_again_there_is_nothing_to_do(prepared: tuple[Path, str], corpus: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared[0].glob("*.tar")}
    again = castbank("prepare", corpus / "short.csv", "--output", prepared[0], "pack.samples_per_shard=4")
    assert again.returncode == 0
    assert again.stdout.startswith("Nothing to do")
    assert {path: path.stat().st_mtime_ns for path in prepared[0].glob("*.tar")} == before


def test_the_resolved_configuration_lies_beside_the_shards(prepared: tuple[Path, str]) -> None:
    from data_prep.config import PrepareConfig
    from jobs.config import load

    config = load(PrepareConfig, prepared[0] / "config.yaml", [])
    assert config.pack.samples_per_shard == 4


def test_the_report_holds_everything_and_fetches_nothing(prepared: tuple[Path, str]) -> None:
    done = castbank("report", prepared[0])
    assert done.returncode == 0, done.stderr
    html = (prepared[0] / "report.html").read_text()
    for sample in read_samples(prepared[0]):
        assert f"<code>{sample['__key__']}</code>" in html
    assert "file_missing" in html
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_sigterm_while_ray_starts_is_one_line_and_exit_code_75(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "shards"
    command = [sys.executable, "-m", "jobs", "prepare", str(corpus / "short.csv"), "--output", str(output)]
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as job:
        assert job.stderr is not None
        while "analyse: 0/" not in (line := job.stderr.readline()):
            assert line, "it ended before it analysed"
        job.terminate()
        said = job.stderr.read()
    assert job.returncode == 75, said
    assert said.strip() == (
        "castbank prepare: stopped by SIGTERM; nothing half-written stays, run it again to go on"
    )
    assert [path.name for path in output.iterdir()] == [".work"]


@pytest.mark.slow
def test_parts_beside_each_other_and_then_the_whole_are_the_same_bytes(
    prepared: tuple[Path, str], corpus: Path, tmp_path: Path
) -> None:
    output, config = tmp_path / "shards", "pack.samples_per_shard=4"
    command = [
        sys.executable,
        "-m",
        "jobs",
        "prepare",
        str(corpus / "short.csv"),
        "--output",
        str(output),
        config,
    ]
    root = Path(__file__).parent.parent.parent
    both = [
        subprocess.Popen([*command, "--part", part], cwd=root, stdout=subprocess.PIPE, text=True)
        for part in ("1/2", "2/2")
    ]
    said = [process.communicate(timeout=500)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for part, text in zip(("1/2", "2/2"), said, strict=True):
        assert re.match(rf"part {part}: [23] of 5 clips; 0 were analysed before, [23] now, 0 failed\n", text)
        next_one = text.splitlines()[-1].removeprefix("next, when all 2 parts are done: ")
        assert shlex.split(next_one)[1:] == command[3:]
    done = castbank(*shlex.split(next_one)[1:])
    assert done.returncode == 0, done.stderr
    assert "analyse: 5/5" in done.stderr and "analyse: 0/5" not in done.stderr
    made, expected = (
        {p.name: p.read_bytes() for p in place.iterdir() if p.suffix in ENDINGS}
        for place in (output, prepared[0])
    )
    assert made == expected


BadInput = Callable[[Path], list[str]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda p: [str(p / "none.csv")], r"none\.csv"),
        (lambda p: [str(p)], "folder|directory"),
        (lambda p: [str(p / "empty.csv")], "empty"),
        (lambda p: [str(p / "no_url.csv")], "url"),
        (lambda p: [str(p / "one.csv"), "windows.nun_frames=17"], r"did you mean 'windows\.num_frames'"),
        (lambda p: [str(p / "one.csv"), "windows.num_frames=many"], r"windows\.num_frames"),
        (
            lambda p: [str(p / "one.csv"), "windows.stride=0"],
            r"windows\.stride: came 0, allowed is 1 or more",
        ),
        (lambda p: [str(p / "one.csv"), "faces.pack=nobodys"], "no pack is called 'nobodys'"),
        (lambda p: [str(p / "one.csv"), f"clips={p}/nowhere"], "nowhere"),
        (lambda p: [str(p / "one.csv"), "--part", "0/4"], "--part: came '0/4'; give K/N"),
        (lambda p: [str(p / "one.csv"), "--part", "5/4"], "--part: came '5/4'"),
        (lambda p: [str(p / "one.csv"), "--part=x"], "--part: came 'x'"),
        (lambda p: [str(p / "one.csv"), "--config", str(p / "none.yaml")], "does not exist"),
        (lambda p: [str(p / "one.csv"), "captions.url=http://x/v1"], r"captions\.model is empty"),
        (
            lambda p: [str(p / "one.csv"), "captions.url=http://x/v1", "captions.model=m"],
            "give the model's prices",
        ),
        (lambda p: [str(p / "one.csv"), "captions.url=x", "captions.key=sk-1"], r"captions\.key=env:NAME"),
        (lambda p: ["ftpx://host/one.csv"], "no store of this kind is known"),
        (lambda p: [str(p / "one.xlsx")], "does not exist"),
        (
            lambda p: [str(p / "one.csv"), "ingest.max_attempts=0"],
            r"ingest\.max_attempts: came 0, allowed is from 1",
        ),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: BadInput, message: str, tmp_path: Path, face_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "clip_id,url,fps,frame_width,frame_height,start_time,end_time,Brief Description\n"
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "no_url.csv").write_text(header.replace("url,", "") + "a.mp4,24,96,64,0,1,x\n")
    (tmp_path / "one.csv").write_text(header + "a.mp4,film,24,96,64,0,1,x\n")
    output = tmp_path / "out"
    code = main(["prepare", "--output", str(output), *arguments(tmp_path)])
    said = capsys.readouterr().err
    assert code == 2, said
    assert re.search(message, said), said
    assert len(said.strip().splitlines()) == 1
    assert not list(output.glob("*")) or list(output.glob("*")) == [output / ".work"]


def test_a_part_without_clips_is_done(
    tmp_path: Path, face_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "clip_id,url,fps,frame_width,frame_height,start_time,end_time,Brief Description\n"
    (tmp_path / "one.csv").write_text(header + "a.mp4,film,24,96,64,0,1,x\n")
    where = [str(tmp_path / "one.csv"), "--output", str(tmp_path / "out")]
    assert main(["prepare", *where, "--part", "2/3"]) == 0
    assert capsys.readouterr().out.startswith("part 2/3: 0 of 0 clips; ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".work"]


def test_a_corpus_without_any_sample_says_so_and_exits_3(
    tmp_path: Path, face_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "clip_id,url,fps,frame_width,frame_height,start_time,end_time,Brief Description\n"
    (tmp_path / "one.csv").write_text(header + "a.mp4,film,24,96,64,0,1,x\n")
    assert main(["prepare", str(tmp_path / "one.csv"), "--output", str(tmp_path / "out")]) == 3
    assert "no sample is left" in capsys.readouterr().out
    assert (tmp_path / "out" / "manifest.json").is_file()
