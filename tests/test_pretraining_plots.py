"""Figures of pretraining, the curves that grow while it runs, and the explorer."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from test_figures import titles_apart

from spdlib.encoders import load_encoder
from spdlib.loop import Callback
from spdlib.notebooks.explorers.explorer import errors
from spdlib.notebooks.explorers.pretraining import spot_explorer
from spdlib.notebooks.figures import pretraining as plots
from spdlib.notebooks.figures import style
from spdlib.notebooks.live import LiveCurves
from spdlib.objectives import spd_loss
from spdlib.pretraining import presets, pretrain
from spdlib.pretraining.live import Embeddings
from spdlib.smoothblend import SmoothBlend
from spdlib.views import WeakView, spd_triplet


@pytest.fixture
def images():
    return torch.randint(0, 256, (6, 3, 64, 64), generator=generator(), dtype=torch.uint8)


def generator():
    return torch.Generator().manual_seed(0)


def history(steps=20, spd=True, every=10):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"step": range(steps + 1), "epoch": 0.0})
    for name in ("loss", "baseline", "spd", "cos_positive", "cos_negative"):
        table[name] = rng.normal(size=steps + 1)
    table.loc[0, "loss":] = np.nan
    if not spd:
        table.loc[:, "spd":] = np.nan
    table["spd_accuracy"] = np.nan
    for name in ("std", "effective_rank", "spot_auroc", "spot_aupr"):
        table[name] = np.where(table.step % every == 0, rng.uniform(0.2, 0.9, steps + 1), np.nan)
    return table


def blended_triplet(images, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    *views, alpha = spd_triplet(images / 255, WeakView(64), SmoothBlend(), numbers, alpha=True)
    return tuple(views), alpha


def spot(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "weak": rng.lognormal(-3, 1, count),
        "blended": rng.lognormal(-2.5, 1, count),
        "features": torch.from_numpy(rng.normal(size=(count, 7))),
    }


def test_the_score_of_projections_is_drawn_where_there_are_projections():
    def drawn(table):
        fig = plots.training({"simsiam_spd": table})
        (ax,) = (ax for ax in fig.axes if ax.get_title().startswith("spot"))
        return [line.get_ydata().tolist() for line in ax.lines[:-1]], ax.get_legend() is not None

    table = history()
    known = table.spot_auroc.notna()
    features, projections = (table.spot_auroc[known] + gain for gain in (0, 0.1))
    assert drawn(table) == ([features.tolist()], False)
    apart = table.assign(spot_projected=projections)
    assert drawn(apart) == ([features.tolist(), projections.tolist()], True)
    assert drawn(table.assign(spot_projected=table.spot_auroc)) == ([features.tolist()], False)


def test_views_show_what_was_given_and_outline_the_patch(images):
    triplet, alpha = blended_triplet(images[:3], seed=5)
    fig = plots.views((triplet[0], triplet[1]), triplet, alpha)
    axes = np.array(fig.axes).reshape(3, 6)
    for row, column, batch in ((0, 2, 0), (1, 3, 1), (2, 4, 2), (2, 5, 2)):
        drawn = axes[row, column].images[0].get_array()
        np.testing.assert_allclose(drawn, triplet[batch][row].permute(1, 2, 0), atol=1e-6)
    outlined = [bool(ax.collections) for ax in axes[0]]
    assert outlined == [False] * 5 + [True]
    line = np.concatenate([path.vertices for path in axes[1, 5].collections[0].get_paths()])
    peak = np.unravel_index(int(alpha[1, 0].argmax()), (64, 64))[::-1]
    assert (line.min(0) <= peak).all() and (peak <= line.max(0)).all()


def test_losses_are_cosines_of_angles_and_arrows_lower_them():
    angles = (90, 165, 70)
    vectors = [torch.tensor([math.cos(math.radians(a)), math.sin(math.radians(a))]) for a in angles]
    (ax,) = [ax for ax in plots.losses({"case": tuple(vectors)}).axes if ax.get_title()]
    expected = math.cos(math.radians(90 - 70)) - math.cos(math.radians(165 - 90))
    assert ax.get_title() == f"case\nSPD loss {expected:+.2f}"
    drawn, steps = (arrows for arrows in ax.collections if hasattr(arrows, "U"))
    np.testing.assert_allclose(np.stack([drawn.U, drawn.V], 1), torch.stack(vectors))
    np.testing.assert_allclose(steps.XY, torch.stack(vectors))  # from the tips
    for place, step in enumerate(np.stack([steps.U, steps.V], 1)):
        moved = [vector[None] for vector in vectors]
        moved[place] = moved[place] + 0.1 * torch.tensor(step).float()
        assert spd_loss(*moved) < expected


def test_training_draws_each_runs_numbers():
    runs = {"simsiam": history(spd=False), "simsiam_spd": history()}
    fig = plots.training(runs)
    baseline, spd, cosines, spots, *_ = fig.axes
    drawn = next(line for line in spd.lines if len(line.get_xdata()) == 20)
    np.testing.assert_array_equal(drawn.get_ydata(), runs["simsiam_spd"].spd[1:])
    smooth = next(line for line in baseline.lines if line.get_label() == "SimSiam + SPD")
    values = runs["simsiam_spd"].baseline.to_numpy()[1:]
    naive = [values[max(0, i - 4) : i + 4].mean() for i in range(20)]
    np.testing.assert_allclose(smooth.get_ydata(), naive)
    assert len(cosines.lines) == 4  # of one run only: the baseline has no triplet
    scores = {line.get_label(): line for line in spots.lines}
    assert list(scores["SimSiam"].get_xdata()) == [0, 10, 20]
    assert titles_apart(fig)


def test_training_says_where_there_is_no_spd_term():
    fig = plots.training({"moco": history(spd=False)})
    assert [text.get_text() for ax in fig.axes[1:3] for text in ax.texts] == ["no SPD term"] * 2
    assert titles_apart(fig)


def test_training_of_the_supervised_method_shows_an_accuracy():
    table = history()
    table["spd_accuracy"] = table.cos_positive
    table["cos_positive"] = table["cos_negative"] = np.nan
    fig = plots.training({"supervised_spd": table})
    assert fig.axes[2].get_title() == "accuracy: blended or not"


def test_spot_scores_stand_where_they_are():
    table = pd.DataFrame(
        [("imagenet", "AU-ROC", 0.7, 0.6, 0.75), ("simsiam_spd", "AU-ROC", 0.9, 0.85, 0.95)],
        columns=["method", "metric", "value", "low", "high"],
    )
    fig = plots.spot_scores(table)
    (ax,) = fig.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["ImageNet", "SimSiam + SPD"]
    reach = [c.get_segments()[0][:, 0] for c in ax.collections]
    np.testing.assert_allclose(reach, [[0.6, 0.75], [0.85, 0.95]])
    assert titles_apart(fig)


def test_distances_are_in_units_of_two_images_and_shares_counted():
    spots = {"imagenet": spot(), "simsiam_spd": spot(seed=1)}
    pairs = itertools.combinations(spots["imagenet"]["features"].numpy(), 2)
    between = [1 - a @ b / math.sqrt(a @ a * (b @ b)) for a, b in pairs]
    unit = plots.unit(spots["imagenet"]["features"])
    assert sorted(between)[len(between) // 2 - 1] - 1e-6 <= unit <= np.median(between) + 1e-6
    fig = plots.distances(spots)
    points = fig.axes[0].lines[1]
    np.testing.assert_allclose(points.get_xdata(), spots["imagenet"]["weak"] / unit, rtol=1e-6)
    farther = sum(b > w for w, b in zip(*(spots["imagenet"][k] for k in plots.KINDS), strict=True))
    assert fig.axes[0].get_title().endswith(f"\nblended farther: {farther / 40:.0%}")
    assert titles_apart(fig)
    four = {name: spot() for name in ("imagenet", "simsiam", "simsiam_spd", "simsiam_spd_image")}
    assert titles_apart(plots.distances(four))


def test_neighbours_have_frames_of_their_kind(images):
    found = {"imagenet": (images.reshape(2, 3, 3, 64, 64), [["mono", "poly", "mono"]] * 2)}
    fig = plots.neighbours(images[:2], ["mono", "poly"], found)
    axes = np.array(fig.axes).reshape(2, 4)
    colours = [[ax.spines["left"].get_edgecolor() for ax in row[1:]] for row in axes]
    green, orange = colours[0][0], colours[0][1]
    assert green != orange
    assert colours == [[green, orange, green], [orange, green, orange]]
    assert titles_apart(fig)


def test_the_broken_run_is_marked():
    healthy, broken = history(spd=False, every=1), history(spd=False, every=1)
    fig = plots.collapse({"with": healthy, "without": broken})
    lines = fig.axes[0].get_legend_handles_labels()[0]
    colours = {line.get_label(): line.get_color() for line in lines}
    assert colours == {"with": style.BLUE, "without": style.VERMILION}
    assert titles_apart(fig)


class Listener(Callback):
    """Keeps all projections of training steps, to compare with."""

    def __init__(self):
        self.seen = []

    def on_start(self, training):
        projection = training.objective.baseline.projection
        projection.register_forward_hook(lambda *args: self.seen.append(args[2].detach()))


def test_callbacks_see_the_training_as_it_is(images):
    live, embeddings, listener = LiveCurves(), Embeddings(), Listener()
    settings = presets.settings(
        "simsiam", encoder="resnet18", weights="random", size=32, epochs=2, batch_size=3, eta=0
    )
    done = pretrain(
        load_encoder("resnet18"), images, settings, images[:4],
        callbacks=[live, embeddings, listener],
    )  # fmt: skip
    shown = live.histories["simsiam"]
    pd.testing.assert_frame_equal(
        shown, done[shown.columns], check_dtype=False, check_like=True, check_exact=True
    )
    assert [row["step"] for row in embeddings.rows] == [1, 2, 3, 4]
    for row, first in zip(embeddings.rows, listener.seen[::2], strict=True):
        unit = F.normalize(first.double(), dim=1).numpy()
        expected = np.mean([np.std(column, ddof=1) for column in unit.T]) * math.sqrt(2048)
        assert row["std"] == pytest.approx(expected, rel=1e-5)


def test_the_explorer_answers_with_each_encoders_distances(images):
    encoders = {name: load_encoder("resnet18") for name in ("imagenet", "simsiam_spd")}
    box = spot_explorer(images, list("abcdef"), encoders, dict.fromkeys(encoders, 0.5), 64)
    pictures = [box.picture.value]
    for name, value in (("image", 4), ("draw", 7), ("jitter", 0.5), ("answer", True)):
        box.controls[name].value = value
        assert errors(box) == []
        pictures.append(box.picture.value)
    assert len(set(pictures)) == 5


def test_the_game_says_who_spots_the_patch(images):
    triplet, alpha = blended_triplet(images[:1])
    views = tuple(view[0] for view in triplet)
    found = {"imagenet": (0.2, 0.1), "simsiam_spd": (0.0, 0.4)}
    *_, ax = plots.spot_game(views, alpha[0], found, answer=True).axes
    assert [text.get_text() for text in ax.texts] == ["missed", "spotted"]
