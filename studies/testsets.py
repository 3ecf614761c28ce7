"""Test sets and measures of an encoder: solar cells, an MVTec AD folder, pairs of boards.

Each function returns rows: test set, category, measure, value in [0, 1], and the ends of the
interval over resampled test images, if there is one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from spdlib import evaluation, features, metrics
from spdlib.datasets import load, painted
from spdlib.datasets.defects import SHADES
from spdlib.datasets.samples import read_image
from spdlib.detectors import DETECTORS
from spdlib.encoders import Encoder
from spdlib.images import Images, decode
from spdlib.smoothblend import CutPaste, SmoothBlend
from spdlib.views import WeakView, plain_view

SIZE, FIT, MOST = 128, 100, 80  # pixels; normal images learned; test images of a kind
VALIDATION = 60  # of a category's training normals, the last ones
PAIRS, SPOTS = 100, 64
NEIGHBOURS, PIXELS = (
    "5 neighbours, images, AU-ROC",
    "PaDiM, pixels, AU-PR",
)  # by which choices are made
CUT = ("neighbours", "mahalanobis", "padim")
SETTLED = 0  # seed of all that is the same for every encoder
Row = dict[str, object]


@dataclass(frozen=True)
class Bench:
    """A category that detectors learn, and what they are tried on.

    Attributes:
        category: Its name.
        fit: Normal images, uint8 (N, 3, H, W).
        images: Test images, uint8 (M, 3, H, W); ``masks`` (M, H, W) and ``labels`` (M,) are theirs.
        tasks: By name of the test set, the numbers of its images.
    """

    category: str
    fit: Tensor
    images: Tensor
    masks: Tensor
    labels: np.ndarray
    tasks: dict[str, np.ndarray]


def pool(dataset: str = "elpv") -> pd.DataFrame:
    """Normal training samples without those of the validation."""
    return pd.concat([_known(rows)[0] for _, rows in _samples(dataset)], ignore_index=True)


@lru_cache
def benches(dataset: str, validation_only: bool = False) -> list[Bench]:
    """The categories of a data set: real, painted, and validation images."""
    name = dataset if dataset == "elpv" else "mvtec"
    return [_bench(category, rows, name, validation_only) for category, rows in _samples(dataset)]


def detected(encoder: Encoder, bench: Bench) -> Iterator[Row]:
    """Detectors on the encoder: AU-ROC of images, and of PaDiM's maps the metrics of pixels."""
    batches = [[x.float() / 255 for x in part.split(32)] for part in (bench.fit, bench.images)]
    pooled = [[features.pooled(encoder, part)] for part in batches]
    for name in CUT:
        detector = DETECTORS[name]
        known, new = pooled if detector.pooled else batches
        maps, scores = detector.build(encoder, None, SETTLED).fit(known).score(new)
        for task, numbers in bench.tasks.items():
            about = {"test": task, "category": bench.category}
            labels, found = bench.labels[numbers], scores.numpy()[numbers]
            yield about | _image_row(f"{detector.name}, images", labels, found)
            if maps is not None and bench.masks[numbers].any():
                yield from _pixel_rows(about, detector.name, maps[numbers], bench.masks[numbers])


def spotted(encoder: Encoder, size: int) -> Iterator[Row]:
    """Spot the difference: AU-ROC of the distance to the anchor, by what differs."""
    images = _spots(round(size * 8 / 7)).float() / 255
    generator = torch.Generator().manual_seed(SETTLED)
    weak = WeakView(size)
    anchor, positive, view = (
        plain_view(images, size),
        weak(images, generator),
        weak(images, generator),
    )
    anchor, positive = _pooled(encoder, anchor), _pooled(encoder, positive)
    near = 1 - F.cosine_similarity(anchor, positive)
    labels = np.repeat([0, 1], len(images))
    for name, changed in _changed(view):
        far = 1 - F.cosine_similarity(anchor, _pooled(encoder, changed))
        scores = torch.cat([near, far]).numpy()
        yield {"test": "spot", "category": "elpv"} | _image_row(name, labels, scores)


def paired(encoder: Encoder, folder: str) -> Iterator[Row]:
    """DeepPCB: distances of template and tested board, by window and by cell."""
    template, tested, masks = windows(folder)
    labels = masks.flatten(1).any(1).numpy()
    about = {"test": "deeppcb", "category": "boards"}
    scores, maps = [], {2: [], 3: []}
    with features.evaluating(encoder), torch.no_grad():
        for one, two in zip(template.split(8), tested.split(8), strict=True):
            stages = encoder.stages(torch.cat([one, two]).float() / 255, 4)
            scores.append(1 - F.cosine_similarity(*encoder.pooled(stages[-1]).chunk(2)))
            for stage, found in maps.items():
                found.append(1 - F.cosine_similarity(*stages[stage - 1].chunk(2)))
    yield about | _image_row("pairs", labels, torch.cat(scores).numpy())
    for stage, found in maps.items():
        cells = torch.cat(found)
        step = masks.shape[-1] // cells.shape[-1]
        there = masks[:, step // 2 :: step, step // 2 :: step]  # the cells' centres
        value = metrics.pixel_metrics(cells.numpy(), there.numpy())
        yield about | {"measure": f"cells of stage {stage}, AU-PR", "value": value.aupr}
        yield about | {"measure": f"cells of stage {stage}, AU-ROC", "value": value.auroc}


@lru_cache
def windows(folder: str, size: int = SIZE, count: int = PAIRS) -> tuple[Tensor, Tensor, Tensor]:
    """A window with a box inside and one that no box touches, of each of ``count`` pairs.

    Returns:
        Templates and tested boards, uint8 (2 count, 3, size, size), and boxes as masks.
    """
    rng, found = np.random.default_rng(SETTLED), []
    pairs = sorted(Path(folder).rglob("*_temp.jpg"))
    if not pairs:
        raise FileNotFoundError(f"{folder}: no NAME_temp.jpg of DeepPCB in it")
    for number in rng.permutation(len(pairs)):
        path = pairs[number]
        name = path.name.removesuffix("_temp.jpg")
        boxes = path.parent.with_name(f"{path.parent.name}_not") / f"{name}.txt"
        if not boxes.is_file() or len(found) == 2 * count:
            continue
        rows = [line.replace(",", " ").split()[:4] for line in boxes.read_text().splitlines()]
        two = [read_image(path), read_image(path.with_name(f"{name}_test.jpg"))]
        places = _places(np.array(rows, int).reshape(-1, 4), two[0].shape[-1], size)
        if all(len(chosen) for chosen in places):
            for chosen in places:
                left, top = chosen[rng.integers(len(chosen))]
                mask = _drawn(rows, two[0].shape[-2:])
                found.append([x[..., top : top + size, left : left + size] for x in (*two, mask)])
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def _places(boxes: np.ndarray, side: int, size: int) -> tuple[list, list]:
    """Corners of the grid's windows with a whole box inside, and of those that none touches."""
    corners = [
        (x, y) for y in range(0, side - size + 1, size) for x in range(0, side - size + 1, size)
    ]
    low, high = boxes[:, :2], boxes[:, 2:]
    inside = [c for c in corners if ((low >= c) & (high <= np.add(c, size))).all(1).any()]
    free = [c for c in corners if not ((high > c) & (low < np.add(c, size))).all(1).any()]
    return inside, free


def _drawn(boxes: list, shape: tuple[int, int]) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    for left, top, right, bottom in (map(int, box) for box in boxes):
        mask[top:bottom, left:right] = True
    return mask


def _samples(dataset: str):
    table = evaluation.samples(dataset, test_images=MOST)
    return list(table.groupby("category", sort=False))


def _known(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    train = rows[rows.split == "train"]
    return train.iloc[:-VALIDATION], train.iloc[-VALIDATION:]


def _bench(category: str, rows: pd.DataFrame, name: str, validation_only: bool) -> Bench:
    learned, kept = _known(rows)
    tried = painted(pd.concat([learned.head(2), kept.assign(split="test")])).query(
        "split == 'test'"
    )
    test = rows[rows.split == "test"]
    if validation_only:
        test = test.head(0)
    if name != "elpv":  # choices are made on solar cells alone
        tried = tried.head(0)
    table = pd.concat([test.assign(role="test"), tried.assign(role="validation")])
    table = table.reset_index(drop=True).assign(shade=lambda t: t.get("shade"))
    real, masked = (table[task].eq(True) for task in evaluation.TASKS)
    tasks = {name: real, "validation": table.role == "validation"}
    if (painted_ones := masked & table.painted.eq(True)).any():
        normal = masked & (table.label == 0)
        tasks[f"{name} painted"] = normal | painted_ones
        tasks |= {f"{name} {s}": normal | painted_ones & (table.shade == s) for s in SHADES}
    images = Images(table, SIZE, memory=np.inf)
    fit = learned.sample(min(FIT, len(learned)), random_state=SETTLED)
    numbers = {task: np.flatnonzero(chosen) for task, chosen in tasks.items()}
    kept_tasks = {t: n for t, n in numbers.items() if table.label.iloc[n].nunique() == 2}
    return Bench(
        category, decode(fit, SIZE), images.images, images.masks, table.label.to_numpy(), kept_tasks
    )


@lru_cache
def _spots(size: int) -> Tensor:
    table = load("elpv").query("split == 'test' and label == 0")
    return decode(table.sample(SPOTS, random_state=SETTLED), size)


def _changed(view: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same views, each changed in one place."""
    kinds = {
        f"SmoothBlend, {u}": SmoothBlend(foreground=u) for u in ("zero", "mean", "image", "context")
    }
    kinds |= {"hard paste": SmoothBlend(sigma=0), "CutPaste": CutPaste()}
    for name, blend in kinds.items():
        draw = blend.draw(len(view), view.shape[-2:], torch.Generator().manual_seed(SETTLED))
        changed = blend.blend(view, draw)
        yield name, changed
        if name == "SmoothBlend, zero":
            rim = changed.clone()
            for image, kept, (x0, y0, x1, y1) in zip(
                rim, view, draw.target_boxes.tolist(), strict=True
            ):
                image[:, y0:y1, x0:x1] = kept[:, y0:y1, x0:x1]
            yield "rim alone", rim


def _pooled(encoder: Encoder, images: Tensor) -> Tensor:
    return features.pooled(encoder, images.clamp(0, 1).split(32))


def _image_row(measure: str, labels: np.ndarray, scores: np.ndarray) -> Row:
    low, high = metrics.bootstrap(labels, scores, 500)["auroc"]
    value = metrics.auroc(labels, scores)
    return {"measure": f"{measure}, AU-ROC", "value": value, "low": low, "high": high}


def _pixel_rows(about: Row, name: str, maps: Tensor, masks: Tensor) -> Iterator[Row]:
    found = metrics.pixel_metrics(maps.numpy(), masks.numpy())
    for metric, value in (("AU-PR", found.aupr), ("AU-ROC", found.auroc), ("AU-PRO", found.aupro)):
        yield about | {"measure": f"{name}, pixels, {metric}", "value": value}
