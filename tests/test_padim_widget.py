"""The explorer of anomaly maps, used as a reader uses it."""

import numpy as np
import pytest

from spdlib import evaluation
from spdlib.encoders import load_encoder
from spdlib.notebooks.explorers.explorer import errors
from spdlib.notebooks.explorers.padim import threshold_explorer
from spdlib.notebooks.figures import padim as plots

SIZE = 64


@pytest.fixture(scope="module")
def found():
    samples = evaluation.samples("elpv", train_images=6, test_images=4)
    encoders = {"imagenet": load_encoder("efficientnet_lite0", "imagenet"),
                "random": load_encoder("efficientnet_lite0")}  # fmt: skip
    return evaluation.evaluate(samples, encoders, SIZE, n_features=8)


@pytest.fixture
def drawn(monkeypatch):
    """What the explorer asks to be drawn, call by call."""
    calls, original = [], plots.view

    def view(cell, *arguments):
        names = ("threshold", "top", "labels", "scores", "number")
        calls.append(cell._asdict() | dict(zip(names, arguments, strict=True)))
        return original(cell, *arguments)

    monkeypatch.setattr(plots, "view", view)
    return calls


def test_every_control_changes_the_picture(found):
    box = threshold_explorer(found)
    assert errors(box) == []
    low, high = (end(found.scores["imagenet"]) for end in (np.min, np.max))
    settings = [("place", 2), ("encoder", "imagenet"), ("category", "poly"), ("kind", "all"),
                ("threshold", (low + high) / 2), ("kind", "normal")]  # fmt: skip
    seen = {bytes(box.picture.value)}
    for name, value in settings:
        box.controls[name].value = value
        assert errors(box) == []
        assert bytes(box.picture.value) not in seen, name
        seen.add(bytes(box.picture.value))


def test_images_come_by_falling_score_and_carry_their_verdict(found, drawn):
    box = threshold_explorer(found)
    box.controls["encoder"].value = "imagenet"
    box.controls["category"].value = "poly"
    inside = (found.table.category == "poly") & (found.table.label == 1)
    falling = np.sort(found.scores["imagenet"][inside])[::-1]
    box.controls["threshold"].value = float(falling[1] + falling[2]) / 2
    for place, verdict in ((2, "found"), (3, "missed")):
        box.controls["place"].value = place
        last = drawn[-1]
        assert last["scores"][last["number"]] == falling[place - 1] == last["heat"].max()
        assert f"{place} of {inside.sum()}: " in last["title"] and f": {verdict}" in last["title"]
        assert last["labels"][last["number"]] == 1
    box.controls["place"].value = box.controls["place"].max  # beyond the list: its last image
    assert drawn[-1]["scores"][drawn[-1]["number"]] == falling[-1]


def test_only_wrong_verdicts_are_listed(found, drawn):
    box = threshold_explorer(found)
    box.controls["kind"].value = "wrong at this threshold"
    box.controls["threshold"].value = box.controls["threshold"].max
    # Nothing but the very highest score is flagged: every other anomaly is missed.
    assert "missed" in drawn[-1]["title"]
    box.controls["threshold"].value = box.controls["threshold"].min
    assert "false alarm" in drawn[-1]["title"]
    assert errors(box) == []
