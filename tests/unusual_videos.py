"""Kinds of video files that readers get wrong, as arguments for the ``make_video`` fixture; all have 60 frames."""

from __future__ import annotations

from typing import Any

import numpy as np

NUM_FRAMES = 60
VARIABLE_MS = np.cumsum([0] + [33, 50, 17, 120, 41] * 12)[:NUM_FRAMES].tolist()
X265 = "log-level=none:pools=1:open-gop=0"

KINDS: dict[str, dict[str, Any]] = {
    "h264": {},
    "h264_open_gop": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"},
    "h264_variable_rate": {"pts": VARIABLE_MS},
    "h264_one_gop": {"g": "600", "x264-params": "scenecut=0"},
    "h264_edit_list": {"pts": [n * 40 - 400 for n in range(NUM_FRAMES)]},
    "h264_late_start": {"pts": [n * 40 + 500 for n in range(NUM_FRAMES)]},
    "h264_ten_bit": {"pix_fmt": "yuv420p10le"},
    "hevc_open_gop": {
        "codec": "libx265",
        "x265-params": "open-gop=1:keyint=12:bframes=3:log-level=none:pools=1",
    },
    "hevc_ten_bit": {"codec": "libx265", "pix_fmt": "yuv420p10le", "x265-params": X265},
    "hevc_pq": {"codec": "libx265", "pix_fmt": "yuv420p10le", "transfer": 16, "x265-params": X265},
    "hevc_hlg": {"codec": "libx265", "pix_fmt": "yuv420p10le", "transfer": 18, "x265-params": X265},
    "av1": {"codec": "libsvtav1", "preset": "12", "svtav1-params": "lp=1"},
    "vp9": {"codec": "libvpx-vp9", "cpu-used": "8", "deadline": "realtime"},
    "vp9_odd_size": {"codec": "libvpx-vp9", "cpu-used": "8", "deadline": "realtime", "size_px": (191, 95)},
    "mpeg4": {"codec": "mpeg4", "b": "4000000"},
}

TRAITS = {
    "h264_open_gop": {"open_gop"},
    "h264_variable_rate": {"variable_rate"},
    "h264_edit_list": {"edit_list"},
    "h264_late_start": {"late_start"},
    "h264_ten_bit": {"ten_bit"},
    "hevc_open_gop": {"codec", "open_gop"},
    "hevc_ten_bit": {"codec", "ten_bit"},
    "hevc_pq": {"codec", "ten_bit", "hdr"},
    "hevc_hlg": {"codec", "ten_bit", "hdr"},
    "av1": {"codec"},
}
"""What ``probe`` must find unusual; nothing in the other kinds."""


def shown(kind: str) -> tuple[list[int], list[float]]:
    """The painted numbers of the frames that a player shows, and their times in seconds from the first of them."""
    pts = KINDS[kind].get("pts", [n * 40 for n in range(NUM_FRAMES)])
    numbers = [n for n in range(NUM_FRAMES) if pts[n] >= 0]
    return numbers, [(pts[n] - pts[numbers[0]]) / 1000 for n in numbers]
