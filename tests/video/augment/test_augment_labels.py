"""Which classes a mirror changes."""

from __future__ import annotations

import pytest

from hf_video.errors import VideoOptionError
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.labels import mirror_labels
from hf_video.video.augment.temporal import TemporalAugmentation

# The six classes of Something-Something v2 and those of Jester that tell left from right.
SOMETHING = [
    "Pulling [something] from left to right",
    "Pulling [something] from right to left",
    "Pushing [something] from left to right",
    "Pushing [something] from right to left",
    "Turning the camera left while filming [something]",
    "Turning the camera right while filming [something]",
    "Dropping [something] onto [something]",
]
JESTER = [
    "Swiping Left", "Swiping Right", "Sliding Two Fingers Left", "Sliding Two Fingers Right",
    "Turning Hand Clockwise", "Turning Hand Counterclockwise", "Thumb Up", "No gesture",
]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *zip(SOMETHING[0:6:2], SOMETHING[1:6:2], strict=True),
        *zip(JESTER[0:6:2], JESTER[1:6:2], strict=True),
        ("turn_left", "turn_right"),
        ("turnLeft", "turnRight"),
        ("TURN-LEFT", "turn right"),
        ("left", "right"),
        ("jump.left.2", "jump.right.2"),
        ("leftward", "rightward"),
        ("left-handed serve", "right handed serve"),
        ("lefthanded", "righthanded"),
        ("spin counter-clockwise", "spin clockwise"),
        ("spin_anticlockwise", "spin_clockwise"),
        ("walk left2right", "walk right2left"),
    ],
)
def test_pairs(first, second):
    assert mirror_labels([first, "clap", second]) == {first: second, "clap": "clap", second: first}


@pytest.mark.parametrize("label", ["eating leftovers", "bright", "copyright", "upright row", "cleft", "playing guitar"])
def test_words_that_only_look_like_it(label):
    assert mirror_labels([label]) == {label: label}


def test_a_class_whose_mirror_image_is_missing():
    assert mirror_labels(["turn_left", "stop"]) == {"turn_left": None, "stop": "stop"}


def test_other_words():
    assert mirror_labels(["nach links", "nach rechts"], words=[["links", "rechts"]])["nach links"] == "nach rechts"
    assert mirror_labels(["налево", "направо"], words=[("налево", "направо")])["налево"] == "направо"
    with pytest.raises(VideoOptionError, match="pairs"):
        mirror_labels(["a"], words=["left"])


def test_flipping_is_refused_where_it_would_make_labels_wrong():
    with pytest.raises(VideoOptionError, match=r"from left to right.*2 more.*flip=0.*swap.*mirror_words"):
        Augmentation(32).for_labels(SOMETHING)
    with pytest.raises(VideoOptionError, match="Clockwise"):
        Augmentation(32).for_labels(JESTER[4:])
    assert Augmentation(32, flip=0).for_labels(SOMETHING) == Augmentation(32, flip=0)
    assert Augmentation(32).for_labels(["clap", "jump"]) == Augmentation(32)
    Augmentation(32, mirror_words=()).for_labels(["what is left over"])
    with pytest.raises(VideoOptionError):
        Augmentation(32).for_labels(["what is left over"])


def test_swap_needs_both_classes():
    assert Augmentation(32, flip="swap").for_labels(SOMETHING).mirror == (1, 0, 3, 2, 5, 4, 6)
    with pytest.raises(VideoOptionError, match="none for 'turn_left'"):
        Augmentation(32, flip="swap").for_labels(["turn_left", "stop"])


def test_playing_backwards_is_refused_for_directions_in_time():
    TemporalAugmentation(reverse=0.5).for_labels(["clap", "swim"])
    TemporalAugmentation(speed=(0.5, 2)).for_labels(["opening a door"])
    for label in ("opening a door", "left", "Moving something up", "Turning Hand Clockwise"):
        with pytest.raises(VideoOptionError, match="reverse=0"):
            TemporalAugmentation(reverse=0.5).for_labels(["clap", label])
