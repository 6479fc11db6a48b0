"""The demo footage as a list of scenes: sources of one to three clips, in which casts come back in other takes.

Between them they hold pairs and trios in both orders, a full occlusion, two hard cuts, six faces at one table,
people seen only once, and a clip with nobody in it.
"""

from __future__ import annotations

from data_prep.footage.scenes import Actor, Pose, Scene, Shot, still

LENGTH = 108  # frames, 4.5 s: three training windows of 17 frames at stride 2
DESK_PX = 86


def _pair(backdrop: str, left: Actor, right: Actor, num_frames: int = LENGTH) -> tuple[Shot, ...]:
    return (Shot(num_frames, backdrop, (left, right), DESK_PX),)


_GARAGE = (
    Scene(
        "garage-01",
        "reel-garage",
        0.0,
        _pair(
            "garage", Actor("martin-1", still(270, 315, 190)), Actor("victor-1", still(690, 305, 180, -20))
        ),
        "Martin and Victor talk behind a workbench.",
        "Martin sits on the left and talks with small movements of his head, while Victor, on the right, listens "
        "and now and then opens his mouth to answer.",
    ),
    Scene(
        "garage-02",
        "reel-garage",
        12.0,
        _pair(
            "garage", Actor("victor-5", still(280, 312, 185)), Actor("martin-2", still(680, 320, 195, -30))
        ),
        "Victor and Martin have changed places in the garage.",
        "Victor now sits on the left and speaks; Martin, on the right, looks about and listens.",
    ),
    Scene(
        "garage-03",
        "reel-garage",
        31.5,
        (
            Shot(
                LENGTH,
                "garage",
                (Actor("martin-3", (Pose(0, 420, 335, 155), Pose(1, 500, 325, 230, 2))),),
                DESK_PX,
            ),
        ),
        "Martin comes closer to the camera.",
        "Martin is alone in the garage; he tilts his head and moves steadily towards the camera.",
        "Close-up",
        "The camera pushes in on one person.",
    ),
)

_LAUNCH = (
    Scene(
        "launch-01",
        "reel-launch",
        4.0,
        _pair(
            "launch",
            Actor("bruno-1", still(290, 312, 200), sway_deg=13),
            Actor("martin-4", still(670, 322, 190)),
        ),
        "Bruno and Martin wait for the launch.",
        "Bruno, on the left, turns his head slowly from one side to the other; Martin, on the right, lifts his "
        "chin and speaks.",
    ),
    Scene(
        "launch-02",
        "reel-launch",
        20.5,
        _pair(
            "launch",
            Actor("toby-1", still(290, 332, 200), sway_deg=13, phase=0.3),
            Actor("bruno-3", still(680, 312, 195, -24), sway_deg=12, phase=0.6),
        ),
        "Toby and Bruno stand before the rocket.",
        "Toby, on the left, looks to either side of the camera; Bruno, on the right, keeps turning his head.",
    ),
    Scene(
        "launch-03",
        "reel-launch",
        47.0,
        (
            Shot(
                LENGTH,
                "launch",
                (
                    Actor("martin-6", still(200, 338, 165)),
                    Actor("bruno-1", still(480, 328, 168, -16), sway_deg=14, phase=0.5),
                    Actor("toby-3", still(765, 358, 168), sway_deg=13, phase=0.1),
                ),
                DESK_PX,
            ),
        ),
        "Martin, Bruno and Toby watch together.",
        "Three men sit side by side: Martin on the left talks, Bruno in the middle and Toby on the right turn "
        "their heads.",
        "Wide shot",
    ),
)

_CALL = (
    Scene(
        "call-01",
        "reel-call",
        2.0,
        _pair(
            "office",
            Actor("toby-2", still(690, 235, 300, 6, 1.02), sway_deg=10),
            Actor("victor-2", still(290, 312, 190)),
        ),
        "Victor sits in a call with Toby.",
        "Victor, on the left, leans towards the camera and speaks, while Toby's face fills a screen on the right.",
    ),
    Scene(
        "call-02",
        "reel-call",
        15.25,
        _pair(
            "office",
            Actor("bruno-2", still(690, 235, 300, 6, 1.02), sway_deg=10, phase=0.4),
            Actor("nora-1", still(270, 292, 190), sway_deg=13),
        ),
        "Nora calls Bruno.",
        "Nora, on the left, turns her head from side to side; Bruno looks out of a screen on the right.",
    ),
    Scene(
        "call-03",
        "reel-call",
        33.0,
        (
            Shot(
                LENGTH,
                "evening",
                (
                    Actor("toby-4", still(180, 262, 290, 6, 1.02), sway_deg=11, phase=0.7),
                    Actor("nora-2", still(480, 258, 270, 6, 1.02), sway_deg=11, phase=0.2),
                    Actor("bruno-4", still(780, 262, 290, 6, 1.02), sway_deg=11, phase=0.5),
                ),
            ),
        ),
        "Toby, Nora and Bruno meet on three screens.",
        "Three screens hang side by side: Toby on the left, Nora in the middle and Bruno on the right; each turns "
        "the head a little.",
        "Close-up",
    ),
)

_CAFE = (
    Scene(
        "cafe-01",
        "reel-cafe",
        8.0,
        _pair(
            "cafe",
            Actor("nora-3", still(290, 300, 185), sway_deg=13, phase=0.4),
            Actor("oscar-1", still(670, 302, 190, -20)),
        ),
        "Nora and Oscar sit in a cafe.",
        "Nora, on the left, looks around; Oscar, on the right, talks to her with lively movements.",
    ),
    Scene(
        "cafe-02",
        "reel-cafe",
        26.0,
        _pair("cafe", Actor("victor-6", still(270, 318, 180)), Actor("oscar-3", still(645, 302, 185))),
        "Victor and Oscar talk over coffee.",
        "Victor, on the left, speaks; Oscar, on the right, leans back and answers.",
    ),
    Scene(
        "cafe-03",
        "reel-cafe",
        40.0,
        (
            Shot(
                LENGTH,
                "cafe",
                (
                    Actor("nora-1", still(530, 300, 185, 10, 1.02), sway_deg=12, phase=0.8),
                    Actor(
                        "victor-3",
                        (
                            Pose(0.0, -170, 345, 265),
                            Pose(0.38, 460, 348, 270, 1),
                            Pose(0.62, 600, 346, 270, -1),
                            Pose(1.0, 1140, 345, 265),
                        ),
                    ),
                ),
            ),
        ),
        "Victor walks past Nora and hides her for a moment.",
        "Nora sits in the middle; Victor crosses the view from left to right, close to the camera, and covers her "
        "face completely before she is seen again.",
        camera="The camera stands almost still.",
    ),
)

_WALL = (
    Scene(
        "wall-01",
        "reel-wall",
        1.0,
        (
            Shot(40, "wall", (Actor("martin-5", still(480, 322, 200)),), DESK_PX),
            Shot(38, "street", (Actor("oscar-4", still(600, 300, 200)),)),
            Shot(
                42,
                "wall",
                (Actor("martin-7", still(300, 325, 185)), Actor("victor-7", still(660, 318, 170))),
                DESK_PX,
            ),
        ),
        "Martin smiles; cut to Oscar in the street; cut back to Martin, now with Victor.",
        "First Martin is seen alone before a brick wall, then Oscar speaks in the street, then Martin sits on the "
        "left of the wall again with Victor on the right.",
        camera="The camera stands still; there are two hard cuts.",
    ),
    Scene(
        "wall-02",
        "reel-wall",
        18.0,
        _pair("wall", Actor("martin-8", still(270, 322, 190)), Actor("oscar-2", still(660, 302, 190, -20))),
        "Martin laughs with Oscar.",
        "Martin, on the left, laughs and talks; Oscar, on the right, looks at the camera and answers.",
    ),
    Scene(
        "wall-03",
        "reel-wall",
        36.75,
        (
            Shot(
                LENGTH,
                "street",
                (
                    Actor("victor-4", still(200, 318, 165)),
                    Actor("toby-1", still(470, 358, 168, 16), sway_deg=14, phase=0.55),
                    Actor("oscar-3", still(735, 306, 168)),
                ),
                DESK_PX,
            ),
        ),
        "Victor, Toby and Oscar sit in the street.",
        "Victor, on the left, looks into the camera; Toby, in the middle, turns his head; Oscar, on the right, "
        "talks.",
        "Wide shot",
    ),
)

_OTHERS = (
    Scene(
        "meadow-01",
        "reel-meadow",
        0.0,
        (Shot(LENGTH, "meadow"),),
        "A meadow with nobody in it.",
        "A big animated rabbit comes out of a burrow under a tree; no person is seen.",
        "Wide shot",
        "The camera stands still.",
    ),
    Scene(
        "meadow-02",
        "reel-meadow",
        9.0,
        _pair(
            "hill",
            Actor("elena-1", still(290, 250, 130), sway_deg=12),
            Actor("edgar-1", still(660, 280, 170), sway_deg=12, phase=0.5),
        ),
        "Elena and Edgar meet on a hillside.",
        "Elena, on the left, smiles in her space suit; Edgar, on the right, looks at the camera with a serious "
        "face.",
    ),
    Scene(
        "table-01",
        "reel-table",
        0.0,
        (Shot(LENGTH, "evening", (Actor("table", (Pose(0, 70, 268, 98), Pose(1, 58, 268, 102))),)),),
        "Six friends play cards at one table.",
        "Ida, Petra, Anton, Milo, Jonas and Lotte, from left to right, sit and stand around a poker table under a "
        "hanging lamp.",
        "Wide shot",
    ),
)

SCENES = (*_GARAGE, *_LAUNCH, *_CALL, *_CAFE, *_WALL, *_OTHERS)
ADDED_CHARACTER = "Toby"
"""The stage name that the second demo run adds as a LoRA."""
