"""spdlib.metrics against scikit-learn, torchmetrics and 200 thresholds, side by side.

    python benchmarks/metrics.py             # needs: pip install -e '.[bench]'

Twenty million pixels with 1 % anomalous ones, float32. Time is the median of the repeats, peak
memory what the process grew by above the inputs, sampled every millisecond; the error is the
largest difference to scikit-learn's values. Then 110 million pixels from an iterator of batches,
as many as VisA's one-class test set has at 224 x 224.

AU-PRO: 100 images of 256 x 256, half of them with defects, against MVTec's evaluation script, its
steps written again, and anomalib's metric, once, where ``pip install anomalib==2.7.0`` was run.
Then images one by one from an iterator: as many as VisA's test set has, and 1,000 of 512 x 512.
"""

import argparse
import importlib.util
import itertools
import statistics
import threading
import time

import numpy as np
import psutil
import sklearn.metrics as sk
import torch
from scipy import ndimage

from spdlib.metrics import aupro, pixel_metrics


def ours(labels, scores):
    found = pixel_metrics(scores, labels)
    return found.auroc, found.aupr, found.max_f1


def scikit_learn(labels, scores):
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return sk.roc_auc_score(labels, scores), sk.auc(recall, precision), f1.max()


def torchmetrics_exact(labels, scores):
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_precision_recall_curve,
    )

    # Scores outside [0, 1] would be passed through a sigmoid, so they are scaled first.
    scaled = torch.from_numpy(scores / scores.max())
    truth = torch.from_numpy(labels.astype(np.int64))
    precision, recall, _ = binary_precision_recall_curve(scaled, truth)
    f1 = 2 * precision * recall / (precision + recall).clamp_min(1e-12)
    area = torch.trapezoid(precision.double(), recall.double()).abs()
    return float(binary_auroc(scaled, truth)), float(area), float(f1.max())


def thresholds_200(labels, scores):
    positives = int(labels.sum())
    tpr, fpr, precision = [0.0], [0.0], [1.0]
    for threshold in np.linspace(scores.max(), scores.min(), 200):
        predicted = scores >= threshold
        true = np.count_nonzero(predicted & labels)
        false = np.count_nonzero(predicted) - true
        tpr.append(true / positives)
        fpr.append(false / (len(labels) - positives))
        precision.append(true / max(true + false, 1))
    p, r = np.array(precision), np.array(tpr)
    return np.trapezoid(tpr, fpr), np.trapezoid(p, r), (2 * p * r / np.maximum(p + r, 1e-12)).max()


def images(count, size, seed=0):
    """Maps and masks, one by one; every other image has one to three defects."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        mask = np.zeros((size, size), bool)
        for _ in range(number % 2 * rng.integers(1, 4)):
            y, x = rng.integers(0, size * 7 // 8, 2)
            height, width = rng.integers(size // 50, size // 8, 2)
            mask[y : y + height, x : x + width] = True
        yield (rng.gamma(4, 2, mask.shape) + 6 * mask).astype(np.float32), mask


class Making:
    """An iterator that knows how long making its items took."""

    def __init__(self, items):
        self.items, self.seconds = items, 0.0

    def __iter__(self):
        return self

    def __next__(self):
        started = time.perf_counter()
        try:
            return next(self.items)
        finally:
            self.seconds += time.perf_counter() - started


def mvtec_script(maps, masks, limit=0.3):
    regions, overlap, normal = 0, np.zeros(maps.shape), np.zeros(maps.shape, np.uint32)
    for number, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3), int))
        normal[number], regions = labels == 0, regions + count
        for label in range(1, count + 1):
            region = labels == label
            overlap[number][region] = 1 / region.sum()
    scores = maps.ravel()
    order = np.argsort(scores)[::-1]
    last = np.append(np.diff(scores[order]) != 0, True)
    x = np.cumsum(normal.ravel()[order])[last] / normal.sum()
    y = np.cumsum(overlap.ravel()[order])[last] / regions
    x, y = np.append(0, x), np.append(0, y)
    end = np.searchsorted(x, limit, "right")
    slope = (y[end] - y[end - 1]) / (x[end] - x[end - 1])
    x, y = np.append(x[:end], limit), np.append(y[:end], y[end - 1] + slope * (limit - x[end - 1]))
    return np.trapezoid(y, x) / limit


def anomalib(maps, masks):
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO()
    metric.update(torch.from_numpy(maps / maps.max()), torch.from_numpy(masks.astype(int)))
    return float(metric.compute())


def overlaps(repeats):
    """AU-PRO, ours and the peers', then ours on sets that do not fit into memory."""
    maps, masks = (np.stack(part) for part in zip(*images(100, 256), strict=True))
    runs = {aupro: [], pixel_metrics: [], mvtec_script: []}
    for _ in range(repeats):
        for contender in runs:
            runs[contender].append(measured(contender, maps, masks))
    if importlib.util.find_spec("anomalib"):
        measured(anomalib, maps[:2], masks[:2])  # its imports take seconds
        runs[anomalib] = [measured(anomalib, maps, masks)]
    base = statistics.median(seconds for _, seconds, _ in runs[aupro])
    reference = runs[mvtec_script][0][0]
    print("100 images of 256 x 256, AU-PRO (pixel_metrics: all metrics)")
    for contender, found in runs.items():
        seconds = statistics.median(s for _, s, _ in found)
        error = abs(getattr(found[0][0], "aupro", found[0][0]) - reference)
        peak = max(memory for _, _, memory in found)
        print(
            f"{contender.__name__:<20}{seconds:9.2f}{seconds / base:8.1f}{peak:9.0f}{error:15.1e}"
        )
    for count, size in ((2162, 224), (1000, 512)):
        making = Making(images(count, size))
        ours, theirs = itertools.tee(making)
        _, seconds, memory = measured(
            pixel_metrics, (values for values, _ in ours), (mask for _, mask in theirs)
        )
        print(
            f"{count:,} images of {size} x {size} from iterators: "
            f"{seconds - making.seconds:.1f} s, {memory:.0f} MB"
        )


def measured(function, *arguments):
    """Result, seconds and the growth of the process's memory in MB."""
    process, peak, done = psutil.Process(), [0], threading.Event()

    def watch():
        while not done.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.001)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return result, seconds, max(0, peak[0] - before) / 1e6


def pixels(arguments):
    """AU-ROC, AU-PR and max F1 of pixels, ours and the peers'."""
    rng = np.random.default_rng(0)
    labels = rng.random(arguments.pixels) < 0.01
    scores = (rng.gamma(4, 2, arguments.pixels) + 6 * labels).astype(np.float32)
    contenders = (ours, scikit_learn, torchmetrics_exact, thresholds_200)
    runs = {contender: [] for contender in contenders}
    for _ in range(arguments.repeats):  # interleaved, so that a slow spell hits all alike
        for contender in contenders:
            runs[contender].append(measured(contender, labels, scores))
    reference = runs[scikit_learn][0][0]
    base = statistics.median(seconds for _, seconds, _ in runs[ours])
    print(f"{arguments.pixels:,} pixels, 1 % anomalous, AU-ROC + AU-PR + max F1")
    print(f"{'':<20}{'seconds':>9}{'x ours':>8}{'peak MB':>9}{'largest error':>15}")
    for contender in contenders:
        seconds = statistics.median(s for _, s, _ in runs[contender])
        peak = max(memory for _, _, memory in runs[contender])
        error = max(abs(a - b) for a, b in zip(runs[contender][0][0], reference, strict=True))
        print(
            f"{contender.__name__:<20}{seconds:9.2f}{seconds / base:8.1f}{peak:9.0f}{error:15.1e}"
        )

    size = 1_000_000
    batches = arguments.stream // size
    pool = [scores[i * size : (i + 1) * size] for i in range(min(20, len(scores) // size))]
    truth = [labels[i * size : (i + 1) * size] for i in range(len(pool))]
    stream = ([values[i % len(values)] for i in range(batches)] for values in (pool, truth))
    _, seconds, memory = measured(pixel_metrics, *(iter(values) for values in stream))
    print(f"{batches * size:,} pixels from an iterator: {seconds:.1f} s, {memory:.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=20_000_000)
    parser.add_argument("--stream", type=int, default=110_000_000, help="pixels of the iterator")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    pixels(arguments)
    overlaps(arguments.repeats)


if __name__ == "__main__":
    main()
