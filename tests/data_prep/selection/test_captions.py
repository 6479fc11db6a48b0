"""Identity sentences and the training caption, as text."""

from __future__ import annotations

import pytest

from data_prep.records import Captions
from data_prep.selection.captions import identity_sentences, training_caption

TWO = Captions(brief="On the left, Frank tells a joke; on the right, Adam laughs.")


@pytest.mark.parametrize(
    ("centres", "captions", "expected"),
    [
        ([40.0], TWO, ["<person-1> is the person in the picture."]),
        (
            [120.0, 30.0],
            TWO,
            [
                "<person-1> is the person on the right: on the right, Adam laughs.",
                "<person-2> is the person on the left: On the left, Frank tells a joke.",
            ],
        ),
        (
            [80.0, 30.0, 120.0],
            Captions(brief="Three people talk.", detailed="In the centre a woman nods. A lamp is seen."),
            [
                "<person-1> is the person in the middle: In the centre a woman nods.",
                "<person-2> is the person on the left.",
                "<person-3> is the person on the right.",
            ],
        ),
        (
            [30.0, 120.0],
            Captions(brief="Frank walks from left to right."),
            ["<person-1> is the person on the left.", "<person-2> is the person on the right."],
        ),
        (
            [40.0, 10.0, 30.0, 20.0],
            TWO,
            [
                "<person-1> is the fourth person from the left.",
                "<person-2> is the first person from the left.",
                "<person-3> is the third person from the left.",
                "<person-4> is the second person from the left.",
            ],
        ),
    ],
)
def test_sentences_bind_a_slot_to_a_place(
    centres: list[float], captions: Captions, expected: list[str]
) -> None:
    assert list(identity_sentences(centres, captions)) == expected


def test_the_caption_is_sentences_then_description_most_important_first() -> None:
    captions = Captions(
        brief="Frank talks",
        detailed="A long   story.\nIn two lines.",
        shot_type="Medium shot",
        lighting="Soft",
        style="Soft",
        camera_movement="Static.",
    )
    assert training_caption(["<person-1> is the person in the picture."], captions) == (
        "<person-1> is the person in the picture. Frank talks. Medium shot. Static. Soft. "
        "A long story. In two lines."
    )


def test_without_captions_the_sentences_stand_alone() -> None:
    assert training_caption(["<person-1> is the person in the picture."], Captions()) == (
        "<person-1> is the person in the picture."
    )
