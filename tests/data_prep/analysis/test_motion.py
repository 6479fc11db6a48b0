"""Flow of pictures that move by a known amount, and when faces are looked for."""

import cv2
import numpy as np
import pytest

from data_prep.analysis.motion import FlowMeter, Pacer


def texture(shift_x: float = 0.0, shift_y: float = 0.0) -> np.ndarray:
    """u8[144,256,3]: smooth noise, moved by whole or half pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 320, 3)).astype(np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    moved = cv2.warpAffine(
        smooth, np.array([[1, 0, shift_x - 32], [0, 1, shift_y - 28]], np.float64), (256, 144)
    )
    return np.ascontiguousarray(moved)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1.5, 0), (-3, 2)])
def test_flow_is_how_far_the_picture_moved(x, y):
    meter = FlowMeter()
    assert (meter.see(texture()) == 0).all()
    flow = meter.see(texture(x, y))
    np.testing.assert_allclose(np.median(flow[16:-16, 16:-16], (0, 1)), (x, y), atol=0.25)
    meter.cut()
    assert (meter.see(texture(9, 9)) == 0).all()


def test_flow_is_the_same_with_any_number_of_threads():
    answers = []
    before = cv2.getNumThreads()
    for threads in (1, 2, 3):
        cv2.setNumThreads(threads)
        meter = FlowMeter()
        meter.see(texture())
        answers.append(meter.see(texture(2, 1)))
    cv2.setNumThreads(before)
    assert all(np.array_equal(answers[0], other) for other in answers[1:])


def test_pictures_smaller_than_the_flows_patches_do_not_move():
    meter = FlowMeter()
    tiny = np.zeros((9, 16, 3), np.uint8)
    meter.see(tiny)
    assert meter.see(tiny + 200).shape == (9, 16, 2)


FACE = np.array([[20, 20, 60, 70]], np.float32)  # 40 px wide
NOBODY = np.zeros((0, 4), np.float32)


def looked(pacer, flows, boxes=FACE, unsure=False):
    return [at for at, flow in enumerate(flows) if pacer.is_due(flow, boxes, unsure=unsure)]


def moving(x, num_frames, place=np.s_[:, :]):
    """Flow of x pixels a frame to the right where ``place`` says, zero elsewhere."""
    flow = np.zeros((90, 160, 2), np.float32)
    flow[place] = (x, 0)
    return [flow] * num_frames


def begun(every=4, max_travel=0.1, face_px=6.0):
    pacer = Pacer(every, max_travel, face_px)
    pacer.cut()
    return pacer


def test_where_nothing_moves_every_fourth_frame_is_enough():
    assert looked(begun(), moving(0, 10)) == [0, 4, 8]
    assert looked(begun(), moving(0, 10), NOBODY) == [0, 4, 8]
    assert looked(begun(every=1), moving(0, 4)) == [0, 1, 2, 3]


def test_a_face_that_moves_by_a_tenth_of_its_size_is_looked_for():
    """4 px: at 3 px a frame the second frame is too far, at 5 px the first."""
    assert looked(begun(), moving(3, 7, np.s_[:, :90])) == [0, 2, 4, 6]
    assert looked(begun(), moving(5, 4)) == [0, 1, 2, 3]
    assert looked(begun(max_travel=1), moving(5, 9)) == [0, 4, 8]


def test_elsewhere_only_what_could_be_a_face_counts():
    """Faces are 6 px or larger: 5 by 5 px that move, and 60 by 90 that move by less than 6 px in all, are none."""
    assert looked(begun(), moving(9, 9, np.s_[:5, 90:95])) == [0, 4, 8]
    assert looked(begun(), moving(1.4, 9, np.s_[:, 100:])) == [0, 4, 8]
    assert looked(begun(), moving(3.5, 7, np.s_[:, 100:])) == [0, 2, 4, 6]  # somebody comes in
    outside = np.array([[200, 200, 240, 240]], np.float32)  # predicted to have left the view
    assert looked(begun(), moving(1.4, 9), outside) == [0, 4, 8]


def test_every_frame_while_the_tracker_is_unsure_and_at_a_cut():
    assert looked(begun(), moving(0, 4), unsure=True) == [0, 1, 2, 3]
    pacer = begun()
    assert looked(pacer, moving(0, 3)) == [0]
    pacer.cut()
    assert looked(pacer, moving(0, 3)) == [0]
