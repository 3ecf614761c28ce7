"""The explorer of predicted masks, and that the figures show what they are given."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgba

from spdlib.datasets.protocols import few_shot, high_shot
from spdlib.datasets.samples import make_table
from spdlib.notebooks.explorers.explorer import errors
from spdlib.notebooks.explorers.twoclass import mask_explorer
from spdlib.notebooks.figures import style
from spdlib.notebooks.figures import twoclass as plots

TRUTH = torch.zeros(2, 8, 8, dtype=torch.bool)
TRUTH[0, 2:4, 2:4] = True


@pytest.fixture
def box():
    exact = np.where(TRUTH.numpy(), 2.0, -2.0)
    return mask_explorer(
        torch.rand(2, 3, 8, 8), ["a crack", "normal"], TRUTH, {"exact": exact, "blind": -exact}
    )


def test_every_control_changes_the_picture(box):
    assert errors(box) == []
    seen = {box.picture.value}
    for name, value in (("threshold", 0.95), ("model", "blind"), ("image", 1)):
        box.controls[name].value = value
        assert errors(box) == []
        assert box.picture.value not in seen
        seen.add(box.picture.value)


def test_an_overlay_counts_pixels():
    half = np.zeros((8, 8))
    half[2, :4] = 0.9  # two of four anomalous pixels, and two others
    for truth, marked, expected in (
        (TRUTH[0], half, "precision 50%, recall 50% of pixels"),
        (TRUTH[0], 0 * half, "precision undefined, recall 0% of pixels"),
        (TRUTH[1], half, "nothing to find, 4 pixels marked"),
    ):
        title = plots.overlay(torch.rand(3, 8, 8), truth, marked, 0.5).axes[2].get_title()
        assert title.replace("\n", " ") == expected


def test_a_strip_shows_every_image_where_it_goes():
    rows = [
        {"path": f"{i}.png", "mask_path": None, "label": int(i >= 30), "category": "c"}
        | {"defect": "d", "split": "test"}
        for i in range(50)
    ]
    table = make_table(rows)
    splits = {"high-shot": high_shot(table), "2-shot": few_shot(table, 2)}
    fig = plots.protocols(table, splits)
    (image,) = fig.axes[0].images
    colours = [to_rgba(colour) for colour in plots.GOES.values()]
    for strip, split in zip(image.to_rgba(image.get_array()), splits.values(), strict=True):
        for where, kinds in (("train", colours[:2]), ("test", colours[2:4])):
            for label, colour in enumerate(kinds):
                shown = np.isclose(strip, colour).all(1).sum()
                assert shown == ((split.label == label) & (split.split == where)).sum()


def test_shots_and_differences_show_every_row():
    curves = pd.DataFrame(
        [("imagenet", k, 0.7, 0.6, 0.8) for k in (1, 5, 10)]
        + [("imagenet", "high-shot", 0.9, 0.85, 0.95)],
        columns=["method", "shots", "mean", "low", "high"],
    )
    lines = pd.DataFrame(
        [("imagenet", 1, 0.8, 0.75, 0.85), ("imagenet", "high-shot", 0.82, 0.75, 0.9)],
        columns=["method", "shots", "mean", "low", "high"],
    )
    (ax,) = plots.shots(curves, lines).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "5", "10", "high"]
    levels = {float(line.get_ydata()[0]) for line in ax.lines}
    assert levels >= {0.7, 0.8, 0.82, 0.9}
    rows = pd.DataFrame(
        [("5-shot", "simsiam", 0.02, -0.01, 0.05), ("5-shot", "simsiam_spd", 0.03, 0.01, 0.05)],
        columns=["protocol", "method", "mean", "low", "high"],
    )
    (ax,) = plots.differences(rows).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == list(
        map(style.method_name, ("simsiam", "simsiam_spd"))
    )


def test_the_worst_mistakes_are_shown():
    images = torch.rand(6, 3, 8, 8)
    labels, scores = [0, 0, 0, 1, 1, 1], [-3.0, 2.0, -1.0, 4.0, -2.0, 1.0]
    fig = plots.mistakes(images, labels, scores, threshold=0.0, count=2)
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == [
        "false alarm\nlog odds +2.0",
        "passed\nlog odds -1.0",
        "missed\nlog odds -2.0",
        "found\nlog odds +1.0",
    ]
