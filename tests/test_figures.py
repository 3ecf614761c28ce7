"""Figures of few or odd data, and of names as users give them; how pictures are laid out."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.formatters import DisplayFormatter

from spdlib.notebooks.figures import attention, metrics, padim, panels, pretraining, style, twoclass

SIZE = 16
LONG = "Löcher & Kratzer $5 {x}_y auf der gebürsteten Vorderseite des Gehäuses links oben"
ODD = ["_private", "a$b$c", "\udcffname", "tab\there", "{}%s", LONG, "a" * 60]


def image(value=0.5):
    return torch.full((3, SIZE, SIZE), value)


def heat(value=1.0):
    return torch.full((SIZE, SIZE), value)


def mask(on=False):
    return torch.zeros(SIZE, SIZE, dtype=torch.bool) | (torch.eye(SIZE) > 0) & on


def rows(columns, *lines):
    return pd.DataFrame(list(lines), columns=columns.split())


def scored(*labels, score=1.0):
    return np.array(labels, int), np.full(len(labels), score)


ONE = {"few": {"simsiam": (np.array([0, 1]), np.array([1.0, 2.0]))}}
GOOD_ONLY = {"nut": {"simsiam": scored(0, 0, 0), "simsiam_spd": scored(0, 0, 0)}}
CONSTANT = {"nut": {"simsiam": scored(0, 1, 0)}}
UNEVEN = CONSTANT | {"bolt": {"simsiam": scored(0, 1), "moco": scored(1, 1)}, "screw": {}}
EVALUATION = "category task method metric value low high"
GAINS = "category task baseline method metric difference low high"
AREAS = "method group area smallest largest defects recall low high"
SUMMARY = "encoder measure mean low high"
SHOTS = "method shots mean low high"
ROOT = pd.DataFrame({"path": ["a", "b"], "label": [0, 0], "split": ["train", "test"]})


SAYS = {  # what there is nothing to draw of
    "glance, none": lambda: padim.glance({}),
    "glance, empty": lambda: padim.glance({"good": []}),
    "curves, none": lambda: padim.curves({}),
    "curves, good only": lambda: padim.curves(GOOD_ONLY),
    "curves, uneven": lambda: padim.curves(UNEVEN),
    "histograms, none": lambda: padim.histograms({}),
    "comparison, none": lambda: padim.comparison([], [], {"simsiam": []}, []),
    "cases, none": lambda: padim.cases({"a": [], "b": []}, image, [], [], [], []),
    "scatter, none": lambda: padim.scatter(rows(EVALUATION)),
    "scatter, no masks": lambda: padim.scatter(
        rows(EVALUATION, ("nut", "detection", "simsiam", "AU-ROC", 0.5, 0.4, 0.6))
    ),
    "differences, none": lambda: padim.differences(rows(GAINS)),
    "recall, none": lambda: padim.recall_by_area(rows(AREAS)),
    "detectors, none": lambda: metrics.curves({}),
    "detectors, good only": lambda: metrics.curves({"real": scored(0, 0)}),
    "operating point, good only": lambda: metrics.operating_point(*scored(0, 0), 1.0),
    "threshold, anomalies only": lambda: metrics.threshold_view(*scored(1, 1), 1.0, image),
    "scores, none": lambda: attention.scores(rows(SUMMARY)),
    "falls, none": lambda: attention.falls(rows("setting " + SUMMARY), {"painted": "painted"}),
    "choices, none": lambda: attention.choices(rows("encoder method stage average_precision")),
    "training, none": lambda: pretraining.training({}),
    "distances, none": lambda: pretraining.distances({}),
    "draw, none": lambda: twoclass.draw(torch.empty(0, 3, SIZE, SIZE), [], "nothing"),
    "losses, none": lambda: twoclass.losses({}),
    "shots, none": lambda: twoclass.shots(rows(SHOTS), rows(SHOTS)),
    "paired, none": lambda: twoclass.differences(rows("protocol method mean low high")),
    "masks, none": lambda: twoclass.masks([], [], {"a": []}, []),
    "mistakes, none": lambda: twoclass.mistakes([], [], [], 0.0),
}  # fmt: skip


@pytest.mark.parametrize("draw", SAYS.values(), ids=SAYS)
def test_a_figure_of_nothing_says_so_in_words(draw):
    figure = draw()
    assert style.png(figure)
    assert any(text.get_text() for ax in figure.axes for text in ax.texts)


DRAWS = {  # little, but something
    "glance, one": lambda: padim.glance({"good": [(image(), mask())], "none": []}),
    "curves, two images": lambda: padim.curves(ONE),
    "curves, constant": lambda: padim.curves(CONSTANT),
    "histograms, no anomalies in one": lambda: padim.histograms(
        CONSTANT | {"bolt": {"simsiam": scored(0, 0)}}
    ),
    "histograms, good only": lambda: padim.histograms(GOOD_ONLY),
    "comparison, one": lambda: padim.comparison(
        [image()], [mask()], {"simsiam": [heat()], "imagenet": [heat()]}, ["one"]
    ),
    "cases, uneven": lambda: padim.cases(
        {"a": [0], "b": []}, lambda i: image(), [heat()], [mask(True)], [0], [1.0]
    ),
    "scatter, one": lambda: padim.scatter(
        rows(EVALUATION, *((c, task, "simsiam_spd", "AU-ROC", 1.0, np.nan, np.nan)
                           for c in "abcd" for task in ("detection", "segmentation")))
    ),
    "differences, one metric": lambda: padim.differences(
        rows(GAINS, ("a", "detection", "moco", "moco_spd", "AU-PR", 0.1, np.nan, np.nan))
    ),
    "recall, one": lambda: padim.recall_by_area(
        rows(AREAS, ("simsiam", 0, 0.1, 0.1, 0.1, 1, 1.0, 0.2, 1.0))
    ),
    "view, one image": lambda: padim.view(
        panels.Picture(image(), heat(0.0), mask(), "1 of 1"), 0.0, 0.0, *scored(0), 0
    ),
    "ranks, none found": lambda: metrics.ranks({"a": scored(0, 0), "b": scored(0, 1)}),
    "threshold, constant": lambda: metrics.threshold_view(
        *scored(0, 1, 0), 1.0, lambda i: np.ones((4, 4))
    ),
    "features, an empty group": lambda: attention.features(
        torch.ones(2), torch.ones(2), {"normal": [0.1], "painted": []}
    ),
    "attention, flat": lambda: attention.steps(image(), image(), torch.zeros(2, 2), heat(0.0)),
    "attention, no masks": lambda: attention.comparison(
        torch.ones(1, 3, SIZE, SIZE), torch.ones(1, 3, SIZE, SIZE), {"moco": heat()[None]}
    ),
    "scores, no interval": lambda: attention.scores(
        rows(SUMMARY, ("moco", "pointing", 0.5, np.nan, np.nan))
    ),
    "falls, one setting": lambda: attention.falls(
        rows("setting " + SUMMARY, ("a", "moco", "hottest", 0.5, 0.4, 0.6)), {"a": "A", "b": "B"}
    ),
    "choices, one": lambda: attention.choices(
        rows("encoder method stage average_precision", ("moco", "gradcam", 4, 0.0))
    ),
    "protocols, good only": lambda: twoclass.protocols(ROOT, {"5-shot": ROOT}),
    "draw, normal only": lambda: twoclass.draw(torch.ones(1, 3, SIZE, SIZE), [0], "one"),
    "shots, high only": lambda: twoclass.shots(
        rows(SHOTS, ("moco", "high-shot", 0.5, 0.4, 0.6)), rows(SHOTS)
    ),
    "mistakes, good only": lambda: twoclass.mistakes([image()], [0], [1.0], 0.0),
    "neighbours, one": lambda: pretraining.neighbours(
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["a"],
        {"moco": (torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8), [["a"]])},
    ),
    "distances, one image": lambda: pretraining.distances(
        {"moco": {"weak": np.array([0.1]), "blended": np.array([0.1]),
                  "features": torch.ones(1, 4)}}
    ),
    "training, one step": lambda: pretraining.training(
        {"moco_spd_eta0.1": pd.DataFrame({"step": [0, 1], "baseline": [np.nan, 1.0]})}
    ),
}  # fmt: skip


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_figure_of_little_is_drawn(draw):
    assert style.png(draw())


def titles_apart(figure):
    """Whether all titles lie inside the figure, and none on another."""
    figure.draw_without_rendering()
    boxes = [ax.title.get_window_extent() for ax in figure.axes if ax.get_title()]
    inside = all(figure.bbox.x0 - 2 <= b.x0 and b.x1 <= figure.bbox.x1 + 2 for b in boxes)
    return inside and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_names_of_any_kind_are_shown_and_stay_apart():
    maps = {method: [heat()] * 7 for method in ("simsiam", LONG)}
    figure = padim.comparison([image()] * 7, [mask(True)] * 7, maps, ODD)
    assert style.png(figure) and titles_apart(figure)
    detectors = {name: {"simsiam": ONE["few"]["simsiam"], LONG: (np.arange(2), np.arange(2))}
                 for name in ODD[-3:]}  # fmt: skip
    for draw in (padim.curves, padim.histograms):
        figure = draw(detectors)
        assert style.png(figure) and titles_apart(figure)
    lines = [(name, "detection", "moco", name, "AU-PR", 0.1, 0.0, 0.2) for name in ODD]
    assert style.png(padim.differences(rows(GAINS, *lines)))
    cells = {name: [(image(), mask())] * 2 for name in ODD}
    assert style.png(padim.glance(cells))
    cell = panels.Picture(image(), heat(), mask(), " ".join(ODD))
    assert style.png(padim.view(cell, 0.5, 2.0, *scored(0, 1), 0))
    assert style.png(metrics.curves({name: (np.arange(2), np.arange(2)) for name in ODD}))
    assert style.png(twoclass.masks([image()] * 7, [mask()] * 7, {LONG: [heat()] * 7}, ODD))


def test_a_notebooks_figure_is_told_in_words_too(monkeypatch):
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(style, "get_ipython", lambda: shell)
    style.use()
    data, about = shell.display_formatter.format(padim.curves(ONE))
    assert data["image/png"].startswith(b"\x89PNG")
    told = about["image/png"]["alt"]
    assert told == data["text/plain"]
    assert told.startswith("ROC and precision-recall curves, a row a category, a line an encoder.")
    assert "few" in told and "SimSiam: AU-ROC 100.00 %" in told


def test_the_next_figure_of_an_explorer_lies_where_the_first_did():
    figures = [metrics.operating_point([0, 1, 1], [1.0, 2.0, 3.0], at) for at in (1.0, 3.0)]
    places = {}
    assert style.png(figures[0], places) != style.png(figures[1], places)
    first, second = ([ax.get_position().bounds for ax in figure.axes] for figure in figures)
    np.testing.assert_allclose(first, second)
    assert len(places) == 1


def test_words_are_whole_or_end_in_an_ellipsis():
    assert style.words("mono") == "mono"
    assert all(len(style.words(name, 20)) <= 22 for name in ODD)
    assert style.words(LONG, 20).endswith("…") and style.words(LONG, 20, 2).count("\n") == 1
    assert style.words("a$b$c") == r"a\$b\$c"
    assert style.words("_private").lstrip("\u200b") == "_private"
    figure, ax = style.figure()
    ax.plot([0, 1], label=style.words("_private"))
    panels.legend(figure, ax)
    assert len(figure.legends[0].get_texts()) == 1


@pytest.mark.parametrize("method", ["simsiam_spd", "simsiam_spd_eta0.1", "simsiam_placebo"])
def test_a_method_of_any_name_has_its_baselines_colour(method):
    look, baseline = style.method_style(method), style.method_style("simsiam")
    assert look["color"] == baseline["color"] != style.method_style("imagenet")["color"]
    assert look["linestyle"] == ("-" if "_spd" in method else "--")
    assert (look["marker"] == "o") == (method == "simsiam_spd")
    assert style.method_style("/weights/of mine.safetensors")["color"] == style.BLACK


def test_a_grid_shows_pixels_maps_and_masks_where_they_belong():
    half = torch.arange(SIZE).expand(SIZE, SIZE) / SIZE
    cells = [panels.Picture(image(0.2), mask=mask(True)), None, (255 * np.ones((4, 8), np.uint8))]
    figure = panels.grid([("a", cells), ("b", [panels.Picture(heat=half)])], ["x", "y", "z"])
    first, second, third, fourth, *_ = figure.axes
    np.testing.assert_allclose(first.images[0].get_array(), 0.2)
    assert first.collections and not second.images
    assert third.images[0].get_array().shape == (4, 8)
    np.testing.assert_array_equal(fourth.images[0].get_array(), half)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["x", "y", "z"]
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["a", "b"]


def test_a_methods_own_colour_is_in_the_legend_of_any_panel():
    lines = [(category, task, method, "AU-ROC", 0.5, 0.4, 0.6)
             for category, method in (("a", "moco"), ("b", "moco"), ("b", "simsiam_spd"))
             for task in ("detection", "segmentation")]  # fmt: skip
    (legend,) = padim.scatter(rows(EVALUATION, *lines)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["MoCo", "SimSiam + SPD"]


def test_intervals_stand_where_they_are():
    table = rows("panel row value low high method",
                 ("p", "a", 0.5, 0.4, 0.7, "moco"), ("p", "b", 0.1, np.nan, np.nan, ""),
                 ("q", "b", 0.3, 0.35, 0.6, "moco_spd"))  # fmt: skip
    p, q = panels.intervals(table, "share", mark=0).axes
    assert [label.get_text() for label in p.get_yticklabels()] == ["a", "b"]
    np.testing.assert_allclose(p.collections[0].get_segments(), [[[0.4, 0], [0.7, 0]]])
    np.testing.assert_allclose(q.collections[0].get_segments(), [[[0.35, 1], [0.6, 1]]])
    assert [float(line.get_xdata()[0]) for line in p.lines] == [0.5, 0.1, 0]
