"""How a result grows with the number of labelled images: probes, trainings, the one-class line.

Everything is measured on the test images of a protocol; what it says of them is kept as
:class:`~spdlib.twoclass.Predictions`, so that detectors can be compared image by image.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch.utils.data import DataLoader

from spdlib import intervals, metrics, results
from spdlib.datasets.protocols import FEW_SHOT, few_shot, high_shot
from spdlib.detectors import DETECTORS, Detector
from spdlib.encoders import Encoder
from spdlib.images import Images
from spdlib.progress import Bar
from spdlib.twoclass import Classifier, Predictions, Segmenter, paired, predict, probe, train
from spdlib.twoclass.presets import TwoClass

Case = tuple[int | None, int]  # shots, None for the high-shot split, and number of the draw


def protocol_name(k: int | None) -> str:
    """How results name a two-class protocol: k shots, or the high-shot split.

    >>> protocol_name(5), protocol_name(None)
    ('2-class 5-shot', '2-class high-shot')
    """
    return f"2-class {'high' if k is None else k}-shot"


def subsample(table: pd.DataFrame, most: int | None, seed: int = 0) -> pd.DataFrame:
    """At most so many samples of each split and kind of defect, at random; all for None."""
    if most is None:
        return table
    shuffled = table.sample(frac=1, random_state=seed)
    return shuffled.groupby(["split", "defect"]).head(most).sort_index().reset_index(drop=True)


def possible(table: pd.DataFrame, shots: Sequence[int]) -> list[int]:
    """Numbers of shots that the few-shot pool of a table holds; none if it is too small for all."""
    counts = table.label.value_counts().reindex([0, 1], fill_value=0)
    pool = min(max(round(FEW_SHOT * counts.min()), 1), counts.min() - 1)
    return [k for k in shots if k <= pool]


def draw(table: pd.DataFrame, cases: Iterable[Case]) -> dict[Case, pd.DataFrame]:
    """A table split for each case, by :mod:`spdlib.datasets.protocols`."""
    return {
        (k, number): high_shot(table) if k is None else few_shot(table, k, seed=number)
        for k, number in cases
    }


def probes(
    features: ArrayLike, images: Images, splits: Mapping[Case, pd.DataFrame]
) -> dict[Case, Predictions]:
    """A linear probe for each split, on features computed once.

    Args:
        features: Of all images (N, D).
        images: The images.
        splits: As :func:`draw` gives them.

    Returns:
        What each probe says of its split's test images.
    """
    features, labels = np.asarray(features), images.table.label.to_numpy()
    found = {}
    for case, table in splits.items():
        learned, tested = (images.rows(table[table.split == part]) for part in ("train", "test"))
        scores = probe(features[learned], labels[learned], features[tested])
        found[case] = Predictions(labels[tested], scores)
    return found


def run(
    encoder: Encoder, images: Images, table: pd.DataFrame, settings: TwoClass, bar: Bar | str
) -> tuple[pd.DataFrame, Predictions]:
    """Trains all weights on one part of a table and predicts the other.

    Args:
        encoder: Where the weights start from; it stays as it is.
        images: The table's images, among others.
        table: One of the tables that :func:`draw` gives.
        settings: How to train.
        bar: As for :func:`spdlib.twoclass.train`.

    Returns:
        The losses, and what the model says of the test images.
    """
    if settings.task == "detection":
        model: Classifier | Segmenter = Classifier(encoder, settings.seed)
    else:
        model = Segmenter(encoder, settings.decoder_width, settings.seed)
    losses = train(model, images.of(table[table.split == "train"]), settings, bar)
    return losses, predict(model, images.of(test_images(table)))


def never_tested(
    table: pd.DataFrame, splits: Mapping[Case, pd.DataFrame], most: int, seed: int = 0
) -> pd.DataFrame:
    """Normal samples of a table that are test images in none of the splits, at most so many."""
    tested = {path for split in splits.values() for path in test_images(split).path}
    normal = table[(table.label == 0) & ~table.path.isin(tested)]
    return normal.sample(min(most, len(normal)), random_state=seed)


def test_images(split: pd.DataFrame) -> pd.DataFrame:
    """The test images of a split table, in its order, which is that of predictions."""
    return split[split.split == "test"]


test_images.__test__ = False  # whatever pytest makes of its name


def one_class(
    encoder: Encoder,
    normal: Images,
    images: Images,
    splits: Mapping[Case, pd.DataFrame],
    seed: int = 0,
    detector: Detector = DETECTORS["padim"],
) -> dict[Case, Predictions]:
    """One-class predictions of the test images of each number of shots, which were not learned.

    Args:
        encoder: Where the detector's features come from.
        normal: What it learns.
        images: Of the splits' table.
        splits: As :func:`draw` gives them. Draws share their test images, so the first will do.
        seed: Seed of the detector.
        detector: One with maps, where masks are to be found.
    """
    model = detector.build(encoder, None, seed)
    model.fit(batch["image"] for batch in DataLoader(normal, 32))
    maps, scores = model.score(batch["image"] for batch in DataLoader(images, 32))
    labels = images.table.label.to_numpy()
    heat = None if maps is None else maps.numpy()
    found = Predictions(labels, scores.numpy(), images.masks.numpy(), heat)
    first = {case: split for case, split in splits.items() if case[1] == 0}
    return {case: found.of(images.rows(test_images(split))) for case, split in first.items()}


def of_images(found: Predictions, split: pd.DataFrame, table: pd.DataFrame) -> Predictions:
    """Predictions of some of a split's test images, in the order of a table of them.

    Raises:
        KeyError: An image of the table is no test image of the split.
    """
    tested = test_images(split).path
    place = pd.Series(range(len(tested)), index=tested)
    return found.of(place.loc[list(table.path)].to_numpy(copy=True))


def measure(
    found: Mapping[Case, Predictions],
    task: str,
    repeats: int = 0,
    prefix: str = "",
    seed: int = 0,
    **columns: Any,
) -> pd.DataFrame:
    """All metrics of a detector, case by case, as rows of results.

    Args:
        found: What it says of each case's test images.
        task: ``detection`` or ``segmentation``.
        repeats: Resamplings of test images for the intervals, where there is one draw only;
            0 for none.
        prefix: Comes before the protocol's name.
        seed: Of the run, and of the resampling.
        **columns: Further columns of :data:`spdlib.results.COLUMNS`.
    """
    parts = []
    for (k, number), predicted in found.items():
        if task == "segmentation":
            truth, scores = predicted.masks, predicted.maps
            if not truth.any():
                raise ValueError(
                    "masks: no test image has a marked pixel; segmentation needs masks of defects, "
                    "or painted ones"
                )
            values = metrics.pixel_metrics(scores, truth)
        else:
            truth, scores = predicted.labels, predicted.scores
            values = metrics.evaluate(truth, scores)
        alone = k is None or (k, 1) not in found
        spread = metrics.bootstrap(truth, scores, repeats, seed=seed) if repeats and alone else None
        case = {"protocol": prefix + protocol_name(k), "task": task}
        case |= {"seed": seed, "draw": None if k is None else number}
        parts.append(results.rows(values, spread, **columns, **case))
    return pd.concat(parts, ignore_index=True)


def curve(rows: pd.DataFrame, metric: str = "AU-PR") -> pd.DataFrame:
    """One detector's results by number of shots.

    Args:
        rows: As :func:`measure` gives them, of one task and downstream model.
        metric: Which.

    Returns:
        Columns ``method``, ``shots`` (a number, or ``"high-shot"``), ``mean``, ``std``,
        ``low``, ``high``. The interval is Student's t over draws; with one draw, the row's own.
    """
    rows = rows[rows.metric == metric].copy()
    rows["shots"] = [
        name if name == "high-shot" else int(name.removesuffix("-shot"))
        for name in rows.protocol.str.split("2-class ").str[-1]
    ]
    by = ["method", "shots"]
    found = intervals.of_means(rows, by)
    own = rows.groupby(by, sort=False)[["low", "high"]].first().reset_index()
    for end in ("low", "high"):
        found[end] = found[end].fillna(own[end].astype(float))
    return found


def gaps(
    rows: pd.DataFrame,
    found: Mapping[str, Mapping[Case, Predictions]],
    baseline: str,
    shown: Sequence[int],
    repeats: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """AU-PR less the baseline's: over draws where there are several, else over test images.

    Args:
        rows: Results of the detection, as :func:`measure` gives them.
        found: The predictions by method that they were measured on.
        baseline: The pretraining that others are compared with.
        shown: Numbers of shots; high-shot comes last.
        repeats: Resamplings of the high-shot test images.
        seed: Of the resampling.

    Returns:
        Columns ``protocol``, ``method``, ``mean``, ``low``, ``high``.
    """
    names = [protocol_name(k) for k in shown]
    few = rows[(rows.metric == "AU-PR") & rows.protocol.isin(names)]
    parts = [paired.differences(few, baseline)]
    truth, reference = found[baseline][None, 0][:2]
    for method in found.keys() - {baseline}:
        scores = found[method][None, 0].scores
        ends = metrics.bootstrap_difference(truth, scores, reference, repeats, seed=seed)["aupr"]
        case = {"protocol": protocol_name(None), "method": method}
        parts.append(pd.DataFrame([case | dict(zip(("mean", "low", "high"), ends, strict=True))]))
    table = pd.concat(parts, ignore_index=True)[["protocol", "method", "mean", "low", "high"]]
    order = {method: place for place, method in enumerate(found)}
    return table.sort_values("method", key=lambda m: m.map(order), kind="stable", ignore_index=True)


def verdicts(curves: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """From how many shots on labels pay: where all of the interval lies above the line.

    Args:
        curves: As :func:`curve` gives them, of the two-class detector.
        lines: The same of the one-class detector, on the same test images.

    Returns:
        By method: ``labels pay``, in words, and ``high-shot gain``, in percentage points. A
        number of shots counts only if all larger ones hold, too.
    """
    both = curves.merge(lines, on=["method", "shots"], suffixes=("", "_line"))
    both["ahead"] = both.low > both.mean_line
    found = {}
    for method, rows in both.groupby("method", sort=False):
        high = rows[rows.shots == "high-shot"]
        few = rows[rows.shots != "high-shot"].sort_values("shots", ascending=False)
        lasting = few.shots[few.ahead.cummin()]
        words = f"not up to {few.shots.max()} of each"
        found[method] = {
            "labels pay": f"from {lasting.min()} of each on" if len(lasting) else words,
            "high-shot gain": (100 * (high["mean"] - high.mean_line)).round(1).squeeze(),
        }
    return pd.DataFrame(found).T
