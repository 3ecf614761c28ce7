"""The explorers of notebook 04, and that their figures say what scikit-learn says."""

import numpy as np
import pytest
import sklearn.metrics as sk

from spdlib import toy
from spdlib.datasets.elpv import elpv
from spdlib.notebooks.explorers import metrics as explorers
from spdlib.notebooks.explorers.explorer import errors
from spdlib.notebooks.figures import metrics as plots


def texts(figure):
    own = [figure.get_suptitle()]
    for ax in figure.axes:
        own += [ax.get_title(), *(text.get_text() for text in ax.texts)]
    return "\n".join(own)


def assert_every_change_redraws(box, values):
    for name, options in values.items():
        for value in options:
            before = bytes(box.picture.value)
            box.controls[name].value = value
            assert errors(box) == []
            after = bytes(box.picture.value)
            assert after.startswith(b"\x89PNG") and after != before, name


def test_toy_explorer_follows_every_slider():
    box = explorers.toy_explorer()
    assert errors(box) == []
    changes = {
        "found": [0.5, 0.0], "positives": [10, 300], "negatives": [100, 1000],
        "false_per_true": [3000, 0, 9], "free": [0.9, 1.0, 0.35],
    }  # fmt: skip
    assert_every_change_redraws(box, changes)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ((100, 100_000, 10, 0.0, 1.0), ["99.50 %", "9.55 %", "9.09 %", "16.67 %", "\n1,000\n"]),
        ((100, 100_000, 9, 0.0, 1.0), ["99.55 %", "10.45 %", "10.00 %", "18.18 %", "\n900\n"]),
        ((100, 100_000, 3000, 0.9, 0.9), ["98.50 %", "90.59 %", "90.09 %", "94.74 %", "\n90\n"]),
    ],
)
def test_toy_figure_holds_the_closed_forms(setting, expected):
    shown = texts(explorers.draw_toy(*setting))
    assert all(value in shown for value in expected), shown


def test_threshold_explorer_moves_images():
    table = elpv("poly").query("split == 'test'").iloc[::10]  # with an index of its own
    scores = np.random.default_rng(0).gamma(9, 1.5, len(table)) + 4 * table.label
    box = explorers.threshold_explorer(table.label, scores, table.path)
    assert errors(box) == []
    assert_every_change_redraws(box, {"threshold": [scores.max(), scores.min(), 15.0]})


def test_threshold_figure_says_what_changed_sides():
    rng = np.random.default_rng(0)
    labels = rng.random(150) < 0.4
    scores = rng.gamma(9, 1.5, 150) + 6 * labels
    precision, recall, thresholds = sk.precision_recall_curve(labels, scores)
    best = thresholds[np.argmax(2 * precision * recall / (precision + recall))]
    asked = []
    figure = plots.threshold_view(labels, scores, 20.0, lambda i: asked.append(i) or np.eye(4))
    moved = np.flatnonzero((scores >= 20) != (scores >= best))
    shown = texts(figure)
    assert f"{len(moved)} images changed sides" in shown
    assert f"precision {100 * sk.precision_score(labels, scores >= 20):.2f} %" in shown
    assert f"F1 {100 * sk.f1_score(labels, scores >= 20):.2f} %" in shown
    assert set(asked) <= set(moved) and len(asked) == plots.SHOWN
    assert shown.count("missed") == 1 + (labels[asked] & (scores[asked] < 20)).sum()


def test_places_in_the_list():
    # Model A's anomalies stand at 1, 12, 23, ...: ten false alarms follow each.
    figure = plots.ranks({"model A": toy.samples(toy.pairs(**toy.MODEL_A))})
    places = figure.axes[0].collections[0].get_positions()
    assert list(places) == [1 + 11 * k for k in range(100)]
