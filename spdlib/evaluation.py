"""A detector over categories and encoders: fitted, scored, measured, + SPD against its baseline.

One table of samples goes in. Every category is decoded once; with every encoder the detector
learns the normal training images and scores the test images, with the same seed. Detection
is measured on images, segmentation on pixels; normal images count in both.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from spdlib import features, intervals, metrics, results
from spdlib.datasets import SampleImages, dataset_name
from spdlib.datasets.defects import painted
from spdlib.datasets.protocols import one_class
from spdlib.datasets.registry import NAMES, load
from spdlib.detectors import Model
from spdlib.detectors import known as known_detector
from spdlib.distributed import device_type
from spdlib.encoders import Encoder
from spdlib.images import Images
from spdlib.memory import free_memory
from spdlib.methods import baseline_of, method_name
from spdlib.metrics.maps import write_map
from spdlib.metrics.measures import METRICS
from spdlib.progress import Bar

TASKS = ("detection", "segmentation")
KINDS = ("real", "painted", "dark", "bright")  # of defects; the last two are of painted ones
PAINTED = "_painted"  # ends the data set's name where the masks are those of painted defects
FEW = 20  # normal test images, below which that is said
FALSE_ALARMS = 0.05  # share of normal images that a threshold may flag
FOLDS = 5  # each training image is in one; a fold is held out at a time ...
HELD_OUT = 20  # ... until so many images are scored by a model that has not learned them
ORACLE = "oracle: max F1, has seen the test images"
Array: TypeAlias = NDArray[Any]
# Yields images chosen, by default all, or their pooled features, a batch at a time.
Reader: TypeAlias = Callable[..., Iterator[Tensor]]
Counter: TypeAlias = Callable[[Iterator[Tensor]], Iterator[Tensor]]  # passes on what it counts


def samples(
    dataset: str,
    categories: Sequence[str] | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
) -> pd.DataFrame:
    """A data set for one-class detection and segmentation.

    Segmentation is measured on anomalies with a mask. Where a category has no masks, synthetic
    defects are painted on half of its held-out normal images; the other half are the normal
    images of that task. Where it has no anomalies either, these painted ones stand for them in
    detection, too.

    Args:
        dataset: Name or folder, as for :func:`spdlib.datasets.load`.
        categories: Names of categories, by default all.
        train_images: Most training images of a category.
        test_images: Most normal, anomalous and painted test images of a category, each.

    Returns:
        A table of samples with the columns ``detection`` and ``segmentation``, whether a test
        sample is part of that task, and ``painted``, whether its defect is synthetic.

    Raises:
        ValueError: As for ``load``, or a category has too few normal images.
        FileNotFoundError: There is no such data set.
    """
    # Split and painted defects are the same whatever a notebook's seed: encoders may have been
    # pretrained on the training images of this split.
    loaded = one_class(load(dataset, categories))
    parts = [_tasks(rows, dataset) for _, rows in loaded.groupby("category", sort=False)]
    table = pd.concat(parts, ignore_index=True)
    kinds = ["category", "split", "label", "painted"]
    shuffled = table.groupby(kinds, sort=False).sample(frac=1, random_state=0)
    number = shuffled.groupby(kinds).cumcount()
    most = shuffled.split.map({"train": train_images, "test": test_images}).fillna(np.inf)
    used = (shuffled.split == "train") | shuffled.detection | shuffled.segmentation
    kept = shuffled[used & (number < most)].sort_index()
    # Categories in the order asked for; within one, in the data set's.
    names = [categories] if isinstance(categories, str) else categories
    order = list(names or sorted(loaded.category.unique()))
    kept = kept.sort_values("category", key=lambda c: c.map(order.index), kind="stable")
    kept.attrs = loaded.attrs  # what loading has to say, for the check of the files
    return kept.reset_index(drop=True)


def task_name(dataset: str, table: pd.DataFrame) -> str:
    """Name of a data set in results; it ends in ``_painted`` if defects of the table are."""
    return dataset_name(dataset) + (PAINTED if table.painted.any() else "")


def cropped(dataset: str, crop: bool | None = None) -> bool:
    """Whether the border is cut off: as asked, by default on the published data sets alone.

    What lies at the border of one's own images may be a defect.
    """
    return dataset in NAMES if crop is None else crop


def caveats(table: pd.DataFrame) -> list[str]:
    """Sentences on what cannot be measured, or only on painted defects.

    Args:
        table: Samples, as :func:`samples` returns them.
    """
    said = []
    for name, rows in table[table.split == "test"].groupby("category", sort=False):
        found, drawn = rows[(rows.label == 1) & ~rows.painted], rows[rows.painted]
        if found.empty:
            said.append(
                f"{name} has good parts only: the defects are painted. How many of these are found "
                "says that the detector works, and nothing about the defects that will come; the "
                "share of good parts that are flagged is real."
            )
        elif len(drawn):
            said.append(f"{name} has no masks: segmentation is measured on painted defects.")
        elif not rows.segmentation.any():
            said.append(f"{name} has no masks and too few held-out normal images to paint on.")
        if (count := int((rows.label == 0).sum())) < FEW:
            said.append(f"{name} has {count} normal test images: mind the width of the intervals.")
    return said


def _tasks(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """One category's samples with the columns of the tasks, painted ones added if need be."""
    test, normal = rows.split == "test", rows.label == 0
    _check_enough(f"{rows.category.iloc[0]} of {dataset}", rows[normal], normal.all())
    if not normal.all() and rows.mask_path.notna().any():
        masked = normal | rows.mask_path.notna()
        return rows.assign(detection=test, segmentation=test & masked, painted=False)
    if (test & normal).sum() < 2:
        return rows.assign(detection=test, segmentation=False, painted=False)
    with_painted = painted(rows)
    drawn = with_painted[with_painted.label == 1].assign(painted=True, segmentation=True)
    clean = rows.path.isin(with_painted.path)
    # Without real anomalies the painted ones are looked for among the images left clean.
    detection = test & (clean if normal.all() else True)
    rows = rows.assign(detection=detection, segmentation=test & clean, painted=False)
    return pd.concat([rows, drawn.assign(detection=normal.all())], ignore_index=True)


def _check_enough(name: str, normal: pd.DataFrame, alone: bool) -> None:
    train, test = ((normal.split == part).sum() for part in ("train", "test"))
    if train < 2 or test < 1:
        raise ValueError(
            f"{name}: {len(normal)} normal images; three are needed, two to learn from and one to "
            "test on"
        )
    if alone and test < 2:
        raise ValueError(
            f"{name} has no anomalous images, and of its {len(normal)} normal ones {test} is held "
            "out; two are needed, to paint a defect on one of them"
        )


@dataclass
class Evaluation:
    """A detector's maps and scores of every test sample, by encoder.

    Attributes:
        table: The test samples, rows numbered from 0.
        masks: Ground truth (N, H, W), all False where there is none.
        scores: Image scores (N,) by method.
        maps: Anomaly maps (N, H, W) by method, on the CPU, 4 bytes a pixel; none by a detector
            without maps.
        detector: Name of the detector in results.
        crop: Whether the border was cut off.
        held_out: Image scores of normal training images, each by a model that had not learned
            it, by category and method.
    """

    table: pd.DataFrame
    masks: Tensor
    scores: dict[str, Array]
    maps: dict[str, Tensor]
    detector: str = "PaDiM"
    crop: bool = False
    held_out: dict[str, dict[str, Array]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Pretraining methods, in the order given."""
        return list(self.scores)

    @property
    def categories(self) -> list[str]:
        """Categories, in the order of the table."""
        return list(self.table.category.unique())

    @property
    def images(self) -> SampleImages:
        """The test samples as the detector saw them."""
        size = self.masks.shape[-1]
        return SampleImages(self.table, size, resize=None if self.crop else size)

    def among(self, defects: str) -> pd.Series:
        """Whether a test sample is one of ``KINDS`` of defects, or normal and told from these."""
        table = self.table
        if defects == "real":
            return table.detection & ~table.painted
        anomalous = table.painted & ((defects == "painted") | (table.get("shade") == defects))
        return table.segmentation & ((table.label == 0) | anomalous)

    def rows(self, category: str, task: str, defects: str | None = None) -> Array:
        """Numbers of the samples that a category's task consists of, or its kind of defects."""
        chosen = self.table[task]
        if defects:
            among = self.among(defects)
            chosen = among & chosen if task == TASKS[1] else among
        return np.flatnonzero((self.table.category == category) & chosen)

    def truth(self, category: str, task: str, defects: str | None = None) -> Array:
        """Labels (n,) of detection, masks (n, H, W) of segmentation."""
        rows = self.rows(category, task, defects)
        return self.table.label.to_numpy()[rows] if task == TASKS[0] else self.masks[rows].numpy()

    def found(self, category: str, task: str, method: str, defects: str | None = None) -> Array:
        """Scores (n,) of detection, maps (n, H, W) of segmentation."""
        rows = self.rows(category, task, defects)
        return self.scores[method][rows] if task == TASKS[0] else self.maps[method][rows].numpy()

    def measured(self, defects: str | None = None) -> Iterator[tuple[str, str]]:
        """Categories and tasks for which there are anomalies to find."""
        tasks = TASKS if self.maps else TASKS[:1]
        for category, task in itertools.product(self.categories, tasks):
            if self.truth(category, task, defects).any():
                yield category, task

    def alarm(self, category: str, method: str, share: float = FALSE_ALARMS) -> float:
        """The lowest threshold that flags at most this share of the held-out training images.

        It has seen no test image, and so may be used on them. Of fewer than three training images
        none is held out; then it is infinite, and nothing is flagged.
        """
        scores = self.held_out.get(category, {}).get(method, np.empty(0))
        if not len(scores):
            return np.inf
        falling = -np.sort(-scores)
        return float(np.nextafter(falling[int(share * len(falling))], np.float32(np.inf)))

    def scaled(self, rows: Sequence[int], method: str) -> Tensor:
        """Maps (n, H, W) in units of the categories' :meth:`alarm`, of two encoders alike.

        Where there is no such threshold, in units of the highest score.
        """
        top = float(self.scores[method].max())
        alarms = [self.alarm(name, method) for name in self.table.category.iloc[rows]]
        units = [alarm if np.isfinite(alarm) else top for alarm in alarms]
        return self.maps[method][rows] / torch.tensor(units)[:, None, None]


def evaluate(
    table: pd.DataFrame,
    encoders: Mapping[str, Encoder],
    *how: Any,
    detector: str = "padim",
    **more: Any,
) -> Evaluation:
    """One detector by its key; everything else as for :func:`evaluate_all`."""
    return evaluate_all(table, encoders, [detector], *how, **more)[detector]


def evaluate_all(
    table: pd.DataFrame,
    encoders: Mapping[str, Encoder],
    detectors: Sequence[str],
    size: int = 160,
    n_features: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    crop: bool = False,
    device: str = "auto",
) -> dict[str, Evaluation]:
    """Fits detectors to each category with each encoder, and scores the test samples.

    Images are decoded once; pooled features are computed once, on the way of the detectors that
    read stages, if there is one.

    Args:
        table: Samples, as :func:`samples` returns them.
        encoders: Encoders by pretraining method; they come back to where they were.
        detectors: Keys of ``spdlib.detectors.DETECTORS``.
        size: Side of the images, pixels.
        n_features: Channels that PaDiM keeps, by default as many as its paper.
        seed: Seed of the detectors, the same for all encoders.
        batch_size: Images decoded at once.
        crop: Cut off the border as PaDiM's authors do, 16 of 256 pixels on each side.
        device: Device of the encoders, as for training: ``auto``, ``cpu``, ``gpu`` or ``mps``.

    Raises:
        ValueError: A detector or the device is unknown, a category has fewer than two training
            images, or as for the detector.
    """
    chosen, device = {key: known_detector(key) for key in detectors}, device_type(device)
    test = table[table.split == "test"].reset_index(drop=True)
    test = test.assign(painted=test.get("painted", False))
    masks = torch.zeros(len(test), size, size, dtype=torch.bool)
    found = {key: Evaluation(test, masks, {}, {}, d.name, crop) for key, d in chosen.items()}
    # Detectors with maps first: what they read leaves its pooled features for the others.
    order = sorted(chosen.items(), key=lambda item: item[1].pooled)
    passes = sum(not detector.pooled for detector in chosen.values())
    gather = 0 < passes < len(order)
    with Bar(len(table) * len(encoders) * max(1, passes), "fitting and scoring", "images") as bar:
        for category, rows in test.groupby("category", sort=False):
            normal = table[(table.split == "train") & (table.category == category)]
            held, numbers = free_memory(torch.device("cpu")) / 4, rows.index.to_numpy(copy=True)
            images = [Images(part, size, crop, held) for part in (normal, rows)]
            masks[numbers] = images[1].masks
            for method, encoder in encoders.items():
                home = encoder.mean.device
                encoder.to(device)
                count = partial(_count, bar=bar, note=f"{category}, {method_name(method)}")
                sources = [_Source(part, batch_size, encoder, gather) for part in images]
                for key, detector in order:
                    for source in sources if detector.pooled else ():
                        source.complete(count)
                    known, new = (s.features if detector.pooled else s.read for s in sources)
                    counted = iter if detector.pooled else count
                    model = detector.build(encoder, n_features, seed)
                    held_out = _fit(model, known, len(normal), counted)
                    found[key].held_out.setdefault(category, {})[method] = held_out
                    _keep(found[key], method, numbers, model.score(counted(new())))
                encoder.to(home)
    return found


def _fit(model: Model, read: Reader, images: int, count: Counter) -> Array:
    """Fits a model to all images; returns scores of some before they were learned.

    One fold is held out, scored, then learned as well. Of few images further folds are held out
    before that, one after the other, from models that are thrown away.
    """
    fold = np.arange(images) % FOLDS
    rounds = min(FOLDS, images, -(-HELD_OUT * FOLDS // images)) if images > 2 else 0
    scores = [np.empty(0, np.float32)]
    extend = getattr(model, "extend", None) if rounds else None  # else it learns all at the end
    for number in reversed(range(rounds)):
        learned = read(fold != number)
        model.fit(count(learned) if extend and not number else learned)
        scores.append(model.score(read(fold == number))[1].numpy())
    if extend:
        extend(count(read(fold == 0)))
    else:
        model.fit(count(read()))
    return np.concatenate(scores)


@dataclass
class _Source:
    """Images that pass an encoder, a batch at a time, and leave their pooled features."""

    images: Images
    batch_size: int
    encoder: Encoder
    gather: bool
    kept: dict[int, Tensor] = field(default_factory=dict)

    def read(self, chosen: Any = slice(None)) -> Iterator[Tensor]:
        """The images chosen, by default all."""
        numbers = np.arange(len(self.images))[chosen].tolist()
        batches = DataLoader(Subset(self.images, numbers), self.batch_size)
        with features.gathering(self.encoder, self.gather) as found:
            yield from (batch["image"] for batch in batches)
        gathered = list(itertools.chain(*found))
        if len(gathered) == len(numbers):  # not of a detector with other passes of its own
            self.kept.update(zip(numbers, gathered, strict=True))

    def complete(self, count: Counter) -> None:
        """Lets the images pass if not all have left their features."""
        if len(self.kept) < len(self.images):
            self.gather = False  # what passes now is returned
            self.kept.update(enumerate(features.pooled(self.encoder, count(self.read()))))

    def features(self, chosen: Any = slice(None)) -> Iterator[Tensor]:
        """Pooled features of the images chosen, by default all, in one batch."""
        yield torch.stack([self.kept[number] for number in range(len(self.images))])[chosen]


def _keep(
    found: Evaluation, method: str, numbers: Array, said: tuple[Tensor | None, Tensor]
) -> None:
    maps, scores = said
    empty = np.empty(len(found.table), np.float32)
    found.scores.setdefault(method, empty)[numbers] = scores.numpy()
    if maps is not None:
        found.maps.setdefault(method, torch.empty(found.masks.shape))[numbers] = maps


def _count(batches: Iterable[Tensor], bar: Bar, note: str) -> Iterator[Tensor]:
    for batch in batches:
        yield batch
        bar.update(len(batch), note)


def measure(
    found: Evaluation, dataset: str, architecture: str, repeats: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """All metrics of all categories, tasks and methods, in the shape of ``spdlib.results``.

    Args:
        found: Maps and scores to measure.
        dataset: Name or folder of the data set.
        architecture: The encoders'.
        repeats: Resamplings of the bootstrap over images.
        seed: Seed of the bootstrap and, in the rows, of the run.
    """
    cases, tables = list(itertools.product(found.measured(), found.methods)), []
    with Bar(len(cases), "bootstrap", "curves") as bar:
        for (category, task), method in cases:
            truth, scores = found.truth(category, task), found.found(category, task, method)
            interval = metrics.bootstrap(truth, scores, repeats, seed=seed)
            columns = {
                "dataset": task_name(dataset, found.table.iloc[found.rows(category, task)]),
                "category": category, "protocol": "1-class", "task": task,
                "downstream_model": found.detector, "encoder": architecture, "method": method,
                "seed": seed,
            }  # fmt: skip
            tables.append(results.rows(_metrics(truth, scores, task), interval, **columns))
            bar.update(note=f"{category}, {task}, {method_name(method)}")
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=results.COLUMNS)


def by_defects(found: Iterable[Evaluation]) -> pd.DataFrame:
    """Metrics by the kind of defects looked for, in percent; see :data:`KINDS`.

    Args:
        found: Evaluations, one a detector.

    Returns:
        A row a ``task``, ``category``, ``detector``, ``method`` and metric; a column a kind.
    """
    rows = []
    for one, kind in itertools.product(found, KINDS):
        for (category, task), method in itertools.product(one.measured(kind), one.methods):
            truth = one.truth(category, task, kind)
            values = _metrics(truth, one.found(category, task, method, kind), task)
            columns = {"task": task, "category": category, "detector": one.detector,
                       "method": method_name(method), "defects": kind}  # fmt: skip
            rows.append(results.rows(values, None, **columns))
    index = ["task", "category", "detector", "method", "metric"]
    long = pd.concat(rows)
    order = long[index].drop_duplicates().sort_values(index[:2], kind="stable")
    wide = long.pivot(index=index, columns="defects", values="value")
    kinds = [kind for kind in KINDS if kind in wide]
    return 100 * wide.reindex(pd.MultiIndex.from_frame(order), columns=kinds)


def _metrics(truth: Array, scores: Array, task: str) -> metrics.Metrics:
    if task == TASKS[0]:
        return metrics.evaluate(truth, scores)
    return metrics.pixel_metrics(scores, truth)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Results to read, as :func:`spdlib.results.table`: a row a task, category and method, and
    detector, if there are several."""
    named = rows.assign(method=rows.method.map(method_name)).rename(
        columns={"downstream_model": "detector"}
    )
    several = ["detector"] if named.detector.nunique() > 1 else []
    return results.table(named, ["task", "category", *several, "method"])


def pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Each + SPD method with its baseline, where both are there.

    >>> pairs(["imagenet", "simsiam", "simsiam_spd", "moco_spd"])
    [('simsiam', 'simsiam_spd')]
    """
    both = [(baseline_of(method) or "", method) for method in methods]
    return [(baseline, method) for baseline, method in both if baseline in methods]


def differences(
    found: Evaluation,
    repeats: int = 1000,
    seed: int = 0,
    defects: str | None = None,
    tasks: Sequence[str] = TASKS,
) -> pd.DataFrame:
    """Gain of + SPD over its baseline, on the same resampled images.

    Args:
        found: Maps and scores to compare.
        repeats: Number of draws of the images with replacement.
        seed: Seed of the draws.
        defects: Kind of defects, one of :data:`KINDS`; by default what each task is measured on.
        tasks: Some of :data:`TASKS`.

    Returns:
        Columns ``category``, ``task``, ``baseline``, ``method``, ``metric``, ``difference``,
        ``low`` and ``high``, the ends of the 95 % interval; no rows without a pair.
    """
    names = ("category", "task", "baseline", "method", "metric", "difference", "low", "high")
    cases, rows = [case for case in found.measured(defects) if case[1] in tasks], []
    for case, pair in itertools.product(cases, pairs(found.methods)):
        theirs, ours = (found.found(*case, method, defects) for method in pair)
        truth = found.truth(*case, defects)
        gains = metrics.bootstrap_difference(truth, ours, theirs, repeats, seed=seed)
        rows += [(*case, *pair, METRICS[name].title, *ends) for name, ends in gains.items()]
    return pd.DataFrame(rows, columns=names)


def verdict(table: pd.DataFrame, metric: str = "AU-PR") -> str:
    """Whether the encoders with SPD are better than their baselines, in plain words.

    It speaks of these encoders: what another seed of their training would give, nothing here
    can tell.

    Args:
        table: Table of :func:`differences`.
        metric: Metric that decides.
    """
    lines = [
        f"By {metric}, this {method_name(method)} encoder is better than this "
        f"{method_name(baseline)} one in {(rows.low > 0).sum()} of {len(rows)} comparisons, worse "
        f"in {(rows.high < 0).sum()}; in the others the interval holds zero."
        for (baseline, method), rows in table[table.metric == metric].groupby(
            ["baseline", "method"], sort=False
        )
    ]
    return "\n".join(lines) or "Nothing to compare: no + SPD encoder stands beside its baseline."


def thresholds(found: Evaluation, share: float = FALSE_ALARMS) -> pd.DataFrame:
    """Thresholds that one may use, and what they do on the test images, beside the oracle's.

    Args:
        found: Scores of test images and of held-out training images.
        share: Normal images that may be flagged, in [0, 1).

    Returns:
        A row a category, method and threshold: ``chosen_on`` (held-out normal images, or the
        oracle: the threshold of the best F1 on the test images themselves), ``images`` (how many
        it rests on), ``threshold``; of the test images ``false_alarms`` and ``recall``, shares
        with Wilson's 95 % interval in ``..._low`` and ``..._high``. Without anomalies there is no
        oracle, and ``recall`` is NaN.
    """
    rows = []
    for category, method in itertools.product(found.categories, found.methods):
        labels = found.truth(category, TASKS[0])
        scores = found.found(category, TASKS[0], method)
        held_out = len(found.held_out[category][method])
        chosen = {"held-out normal images": (held_out, found.alarm(category, method, share))}
        if 0 < labels.sum() < len(labels):
            chosen[ORACLE] = len(labels), metrics.max_f1(labels, scores).threshold
        for name, (images, threshold) in chosen.items():
            row = {"category": category, "method": method, "chosen_on": name, "images": images}
            flagged = scores >= threshold
            row |= {"threshold": threshold} | _share("false_alarms", flagged[labels == 0])
            rows.append(row | _share("recall", flagged[labels == 1]))
    return pd.DataFrame(rows)


def recall_by_area(found: Evaluation, groups: int = 4) -> pd.DataFrame:
    """Share of the defects that is found, from small to large ones.

    A defect counts as found if its map reaches the threshold somewhere inside the mask; the
    threshold flags 5 % of the category's held-out images, see :meth:`Evaluation.alarm`.

    Args:
        found: Maps and masks; categories are taken together.
        groups: Number of groups, of as many defects each.

    Returns:
        One row a method and group: ``area`` (median share of the image), ``smallest``,
        ``largest``, ``defects``, ``recall``, and ``low`` and ``high``, Wilson's 95 % interval.
    """
    rows = np.flatnonzero(found.table.segmentation & (found.masks.sum((1, 2)) > 0).numpy())
    area = found.masks[rows].float().mean((1, 2)).numpy()
    # By rank, so that groups are of like number; ties stay in the order of the table.
    group = np.argsort(np.argsort(area, kind="stable"), kind="stable") * groups // max(1, len(area))
    category, parts = found.table.category.to_numpy()[rows], []
    for method in found.methods:
        inside = found.maps[method][rows].masked_fill(~found.masks[rows], -torch.inf)
        alarms = {name: found.alarm(name, method) for name in np.unique(category)}
        hit = inside.amax((1, 2)).numpy() >= [alarms[name] for name in category]
        shares = {"method": method, "group": group, "area": area, "hit": hit}
        parts.append(pd.DataFrame(shares).sort_values("group", kind="stable"))
    by_group = pd.concat(parts).groupby(["method", "group"], sort=False)
    table = by_group["area"].agg(area="median", smallest="min", largest="max", defects="size")
    recall = [_share("recall", hit.to_numpy()) for _, hit in by_group["hit"]]
    ends = pd.DataFrame(recall, table.index, ["recall", "recall_low", "recall_high"])
    ends.columns = pd.Index(["recall", "low", "high"])
    return table.join(ends).reset_index()


def _share(name: str, flagged: Array) -> dict[str, float]:
    low, high = intervals.of_share(flagged.sum(), len(flagged))
    share = float(flagged.mean()) if len(flagged) else np.nan
    return {name: share, f"{name}_low": low, f"{name}_high": high}


def write_maps(found: Evaluation, folder: str | Path, ending: str = ".tiff") -> Path:
    """Writes each method's maps, and the masks as PaDiM saw them, to be measured elsewhere.

    ``FOLDER/METHOD/CATEGORY/test/DEFECT/NAME.tiff`` and
    ``FOLDER/masks/CATEGORY/ground_truth/DEFECT/NAME_mask.png``: MVTec AD's layout, of which
    ``python -m spdlib.metrics FOLDER/METHOD FOLDER/masks`` makes the numbers of
    :func:`measure` again.

    Args:
        found: Maps and masks; those of segmentation are written.
        folder: Folder to write to; made where it is not there.
        ending: ``.tiff`` or ``.npy``, both float32.

    Returns:
        The folder.
    """
    rows = found.table[found.table.segmentation.to_numpy(bool)]
    stems = rows.path.map(lambda path: Path(path).stem)
    again = stems.groupby([rows.category, rows.defect, stems]).cumcount()
    for row, stem, number in zip(rows.itertuples(), stems, again, strict=True):
        name = f"{stem}-{number}" if number else stem
        for method in found.methods:
            path = Path(folder, method, row.category, "test", row.defect, name + ending)
            write_map(path, found.maps[method][row.Index].numpy())
        if row.label:
            truth = Path(folder, "masks", row.category, "ground_truth", row.defect)
            write_map(truth / f"{name}_mask.png", 255 * found.masks[row.Index].byte().numpy())
    return Path(folder)


def cases(found: Evaluation, category: str, method: str, count: int = 3) -> dict[str, Array]:
    """Numbers of telling test images of detection, by what they show.

    The anomalies that score highest and lowest, the normal images that score highest, and the
    images, of either kind, nearest to the threshold of the best F1.
    """
    rows = found.rows(category, TASKS[0])
    labels, scores = found.truth(category, TASKS[0]), found.found(category, TASKS[0], method)
    near = np.abs(scores - metrics.max_f1(labels, scores).threshold)
    order = np.argsort(-scores, kind="stable")
    anomalies, normal = order[labels[order] == 1], order[labels[order] == 0]
    return {
        "clearest anomalies": rows[anomalies[:count]],
        "missed anomalies": rows[anomalies[::-1][:count]],
        "highest normal": rows[normal[:count]],
        "near the threshold": rows[np.argsort(near, kind="stable")[:count]],
    }


def provenance(encoders: Mapping[str, Encoder]) -> dict[str, dict[str, Any]]:
    """Origin of each encoder's weights, for a file of results."""
    return {method: copy.deepcopy(encoder.provenance) for method, encoder in encoders.items()}
