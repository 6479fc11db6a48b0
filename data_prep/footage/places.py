"""Where the demo footage plays: plain data. None of these pictures shows a face."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Backdrop:
    """What lies behind the people: a picture, frames of a film, or a gradient from ``top`` to ``bottom``.

    num_frames > 1 plays a film from ``start``; tint multiplies the colours; drift_px is how far the view glides.
    """

    caption: str
    media: str = ""
    start: int = 0
    num_frames: int = 1
    blur_px: float = 0.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    top: RGB = (0, 0, 0)
    bottom: RGB = (0, 0, 0)
    drift_px: float = 24.0


BACKDROPS = {
    "garage": Backdrop("a cluttered garage with a red motorcycle", "motorcycle_left.png", blur_px=2.5),
    "launch": Backdrop(
        "a floodlit rocket on its launch pad at dusk", "rocket.jpg", blur_px=1.5, tint=(1.5, 1.4, 1.3)
    ),
    "cafe": Backdrop("a wooden cafe table with a red coffee cup, far out of focus", "coffee.png", blur_px=9),
    "wall": Backdrop("a brick wall in warm light", "brick.png", blur_px=1.2, tint=(1.35, 0.95, 0.75)),
    "street": Backdrop("a street with parked bicycles", "bikes.mp4", start=166, blur_px=1.5),
    "meadow": Backdrop(
        "a green animated meadow with a burrow", "bigbuckbunny.mp4", num_frames=108, drift_px=0
    ),
    "hill": Backdrop("an animated hillside under a blue sky", "bigbuckbunny.mp4", start=0, blur_px=6),
    "office": Backdrop("a plain blue-grey office wall", top=(132, 150, 166), bottom=(70, 82, 98)),
    "evening": Backdrop("a plain wall in evening light", top=(196, 150, 112), bottom=(92, 62, 66)),
}
