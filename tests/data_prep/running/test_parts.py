"""Parts of a preparation, run beside each other, killed, and completed by a whole one: the bytes are the same."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_prep import ledger
from data_prep.flow import prepare
from data_prep.records import InputError
from data_prep.running.parts import Part, prepare_part
from data_prep.running.ray_session import RaySession
from tests import painted_clips
from tests.painted_clips import CAST, analyses, config_for, hashes, make_corpus, paint, quiet, start


@pytest.fixture(scope="module", autouse=True)
def ray_of_the_module(face_home: Path) -> Iterator[None]:
    """One Ray for all calls in this process; other processes have their own."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(painted_clips)
    session = RaySession(num_cpus=2)
    session.start()
    yield
    session.end()


@dataclass(frozen=True)
class Gate:
    """A clip whose analysis waits, without a clock: ``reached`` answers when it has begun, ``open`` lets it go on,
    ``keep_open`` removes it."""

    folder: Path

    def order(self) -> dict[str, str]:
        for name in ("reached", "wait"):
            os.mkfifo(self.folder / name)
        return {name: str(self.folder / name) for name in ("pass", "reached", "wait")}

    def reached(self) -> None:
        (self.folder / "reached").read_text()

    def open(self) -> None:
        (self.folder / "wait").write_text("go")

    def keep_open(self) -> None:
        (self.folder / "pass").touch()


def ended(process: subprocess.Popen[str]) -> int:
    """Its exit code; what it wrote to stderr is shown where a test fails."""
    print(process.communicate(timeout=200)[1])
    return process.returncode


def test_shares_are_disjoint_complete_and_equal() -> None:
    clips = [f"clip{at:02d}" for at in range(10)]
    shares = [Part.parse(f"{k}/4").of(clips) for k in range(1, 5)]
    assert shares[1] == ["clip01", "clip05", "clip09"]
    assert sorted(clip for share in shares for clip in share) == clips
    assert {len(share) for share in shares} == {2, 3}
    assert Part.parse("1/1").of(clips) == clips
    assert Part.parse("3/3").of(clips[:2]) == []


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "x", "1", "1/0", "1/", "/4", "-1/4", "1/4/2", " 1/4", "1.0/4", ""]
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--part: came .*give K/N"):
        Part.parse(text)


@pytest.mark.slow
def test_four_parts_two_at_a_time_then_the_whole_are_byte_identical(tmp_path: Path) -> None:
    corpus, parted, plain = make_corpus(tmp_path / "corpus"), tmp_path / "parted", tmp_path / "plain"
    for pair in (("1/4", "3/4"), ("4/4", "2/4")):
        both = [start(corpus, parted, part) for part in pair]
        assert [ended(process) for process in both] == [0, 0]
    assert [path.name for path in parted.iterdir()] == [".work"]
    before = analyses(parted)
    assert len(before) == len(CAST)
    memories = sorted(path.name for path in (parted / ".work").glob("*.json"))
    assert memories == [f"files-{k}-of-4.json" for k in range(1, 5)]
    assert prepare(config_for(corpus, parted), quiet, analyse_one=paint).worked
    prepare(config_for(corpus, plain), quiet, analyse_one=paint)
    assert hashes(parted) == hashes(plain)
    assert analyses(parted) == before  # nothing was analysed again
    assert hidden(parted) == hidden(plain)
    assert not prepare(config_for(corpus, parted), quiet, analyse_one=paint).worked


def hidden(output: Path) -> set[str]:
    """What lies in the work folder: names, and no leftovers among them."""
    return {path.name for path in (output / ".work").iterdir()}


def test_a_killed_part_loses_its_current_clip_and_goes_on(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    corpus, output = make_corpus(tmp_path / "corpus", clip2=gate.order()), tmp_path / "out"
    process = start(corpus, output, "1/2", num_workers=1)  # clip0, clip2, clip4, clip6
    gate.reached()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = analyses(output)
    # all of these, where clip2 is last: the order is one of contents
    assert kept.keys() <= {"clip0", "clip4", "clip6"}
    gate.keep_open()
    done = prepare_part(config_for(corpus, output), Part(1, 2), quiet, analyse_one=paint)
    assert (done.num_clips, done.num_own, done.num_before, done.failed) == (7, 4, len(kept), ())
    assert analyses(output).keys() == {"clip0", "clip2", "clip4", "clip6"}
    assert analyses(output).items() >= kept.items()
    prepare(config_for(corpus, output), quiet, analyse_one=paint)
    prepare(config_for(corpus, tmp_path / "plain"), quiet, analyse_one=paint)
    assert hashes(output) == hashes(tmp_path / "plain")
    assert hidden(output) == hidden(tmp_path / "plain")  # what the killed one left half-written is gone


def test_a_part_at_work_is_left_alone_by_others_and_keeps_a_whole_one_away(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    corpus, output = make_corpus(tmp_path / "corpus", clip2=gate.order()), tmp_path / "out"
    process = start(corpus, output, "1/2", num_workers=1)
    gate.reached()
    at_work = {path for path in (output / ".work").iterdir() if path.name.startswith(".aside")}
    with pytest.raises(InputError, match="parts of this preparation are at work"):
        prepare(config_for(corpus, output), quiet, analyse_one=paint)
    done = prepare_part(config_for(corpus, output), Part(2, 2), quiet, analyse_one=paint)
    assert (done.num_own, done.num_before) == (3, 0)
    assert len(at_work) == 1 and all(path.is_dir() for path in at_work)
    gate.open()
    assert ended(process) == 0
    assert len(analyses(output)) == len(CAST)


def test_a_whole_one_at_work_keeps_parts_away(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    corpus, output = make_corpus(tmp_path / "corpus", clip0=gate.order()), tmp_path / "out"
    process = start(corpus, output)
    gate.reached()
    with pytest.raises(InputError, match="without --part is at work here"):
        prepare_part(config_for(corpus, output), Part(1, 2), quiet, analyse_one=paint)
    gate.open()
    assert ended(process) == 0


def test_what_a_part_could_not_analyse_is_tried_again_by_the_whole(tmp_path: Path) -> None:
    never = {"abort": str(tmp_path / "healed")}
    corpus, output, plain = (
        make_corpus(tmp_path / "corpus", clip3=never),
        tmp_path / "out",
        tmp_path / "plain",
    )
    done = prepare_part(config_for(corpus, output, max_quarantined=0.2), Part(2, 2), quiet, analyse_one=paint)
    assert [(fate.item, fate.attempts) for fate in done.failed] == [("clip3", 2)]
    prepare(config_for(corpus, output, max_quarantined=0.2), quiet, analyse_one=paint)
    prepare(config_for(corpus, plain, max_quarantined=0.2), quiet, analyse_one=paint)
    named = {fate.item: fate for fate in ledger.read(output / "ledger.parquet") if fate.fate == "quarantined"}
    assert named["clip3"].error_class == "WorkerCrashedError"
    assert {n: h for n, h in hashes(output).items() if not n.startswith("ledger.")} == {
        n: h for n, h in hashes(plain).items() if not n.startswith("ledger.")
    }  # the ledger holds the output's own path in the command that tries again


def test_a_part_whose_every_clip_fails_is_a_failure(tmp_path: Path) -> None:
    never = {"abort": str(tmp_path / "healed")}
    corpus, output = make_corpus(tmp_path / "corpus", clip2=never, clip5=never), tmp_path / "out"
    with pytest.raises(InputError, match=r"2 of 2 clips failed, which is every clip of this part.*clip2"):
        prepare_part(config_for(corpus, output, max_quarantined=1.0), Part(3, 3), quiet, analyse_one=paint)
    with pytest.raises(InputError, match=r"run.max_quarantined: 2 of 7 clips tried failed, allowed are 0\.7"):
        prepare_part(config_for(corpus, output, max_quarantined=0.1), Part(1, 1), quiet, analyse_one=paint)


def test_parts_that_overlap_share_their_work(tmp_path: Path) -> None:
    corpus, output = make_corpus(tmp_path / "corpus"), tmp_path / "out"
    prepare_part(config_for(corpus, output), Part(1, 2), quiet, analyse_one=paint)
    again = prepare_part(config_for(corpus, output), Part(1, 1), quiet, analyse_one=paint)
    assert (again.num_own, again.num_before) == (7, 4)
    nothing = prepare_part(config_for(corpus, output), Part(9, 9), quiet, analyse_one=paint)
    assert (nothing.num_clips, nothing.num_own) == (7, 0)
