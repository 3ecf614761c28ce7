"""Metrics against scikit-learn, closed forms, and scores on which others stumble."""

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from spdlib import metrics, results, toy
from spdlib.metrics import (
    aupr,
    aupro,
    auroc,
    average_precision,
    counting,
    evaluate,
    max_f1,
    measures,
    pixel_metrics,
)


def sklearn_all(labels, scores):
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return {
        "auroc": sk.roc_auc_score(labels, scores),
        "aupr": sk.auc(recall, precision),
        "average_precision": sk.average_precision_score(labels, scores),
        "max_f1": f1.max(),
    }


def assert_equals_sklearn(labels, scores):
    found = evaluate(labels, scores)
    for name, expected in sklearn_all(labels, scores).items():
        assert getattr(found, name) == pytest.approx(expected, abs=1e-12), name
    assert found.max_f1 == pytest.approx(sk.f1_score(labels, scores >= found.threshold), abs=1e-12)
    assert found.precision == pytest.approx(sk.precision_score(labels, scores >= found.threshold))
    assert found.recall == pytest.approx(sk.recall_score(labels, scores >= found.threshold))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(-6, 6)), min_size=2, max_size=60).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    ),
    st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.int8]),
)
def test_any_tied_scores_equal_sklearn(rows, dtype):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    assert_equals_sklearn(labels, scores.astype(dtype))


@pytest.mark.parametrize("chunk", [7, 1000, 1 << 21])
def test_random_scores_equal_sklearn_whatever_the_chunk(chunk, monkeypatch):
    monkeypatch.setattr(counting, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    for prevalence in (0.003, 0.3, 0.9):
        labels = rng.random(5000) < prevalence
        scores = rng.normal(size=5000).round(2) + labels
        assert_equals_sklearn(labels, scores)


@pytest.mark.parametrize(
    "scores",
    [np.zeros(200), np.arange(200.0), -np.arange(200.0), np.full(200, 3)],
    ids=["constant", "separated", "inverted", "integers"],
)
def test_degenerate_scores_equal_sklearn(scores):
    assert_equals_sklearn(np.arange(200) >= 190, scores)


def test_constant_scores_at_five_percent():
    labels = np.arange(1000) < 50
    assert aupr(labels, np.ones(1000)) == pytest.approx(0.525)
    assert average_precision(labels, np.ones(1000)) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("false_per_true", "printed"),
    [(10, (99.50, 9.55, 9.09, 16.67)), (9, (99.55, 10.45, 10.0, 18.18))],
)
def test_model_a_of_appendix_b(false_per_true, printed):
    # Each of 100 anomalies comes with r false alarms of 100,000. AU-ROC is 1 - r / 2000 and
    # precision always 1 / (1 + r), but for the start of the curve at precision 1.
    r = false_per_true
    found = evaluate(*toy.samples(toy.pairs(r)))
    assert found.auroc == pytest.approx(1 - r / 2000)
    assert found.aupr == pytest.approx(1 / (1 + r) + (1 - 1 / (1 + r)) / 200)
    assert found.average_precision == pytest.approx(1 / (1 + r))
    assert found.max_f1 == pytest.approx(2 / (2 + r))
    values = (found.auroc, found.aupr, found.average_precision, found.max_f1)
    assert tuple(round(100 * v, 2) for v in values) == printed


def test_model_b_of_appendix_b():
    found = evaluate(*toy.samples(toy.pairs(**toy.MODEL_B)))
    values = (found.auroc, found.aupr, found.average_precision, found.max_f1)
    assert [round(100 * v, 2) for v in values] == [98.50, 90.59, 90.09, 94.74]
    assert (found.precision, found.recall) == (1.0, 0.9)
    assert_equals_sklearn(*toy.samples(toy.pairs(**toy.MODEL_B)))


@pytest.mark.parametrize(
    ("counts", "message"), [([(2, 0), (1, 5)], "never fall"), ([(1, 101)], "101 false")]
)
def test_impossible_counts_are_named(counts, message):
    with pytest.raises(ValueError, match=message):
        toy.samples(counts, negatives=100)


def test_mahalanobis_scale_scores_are_not_squashed():
    rng = np.random.default_rng(0)
    labels = rng.random(20_000) < 0.05
    scores = (rng.gamma(9, 1.5, 20_000) + 8 * labels).astype(np.float32)
    assert np.quantile(scores, 0.01) > 3.9 and scores.max() > 30
    assert auroc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    squashed = 1 / (1 + np.exp(-scores))  # in float32, what torchmetrics does outside [0, 1]
    assert auroc(labels, squashed) < auroc(labels, scores) - 0.03


def test_inputs_of_any_kind_agree():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(300) < 0.2, rng.random(300).astype(np.float32)
    expected = evaluate(labels, scores)
    assert evaluate(torch.tensor(labels), torch.tensor(scores)) == expected
    assert evaluate(labels.astype(int).tolist(), scores) == expected
    assert evaluate(labels.astype(float), scores.astype(np.float64)) == expected
    assert evaluate(labels.reshape(3, 100), scores.reshape(3, 100)) == expected
    half = torch.tensor(scores).bfloat16()
    assert auroc(labels, half) == auroc(labels, half.float())


ACCELERATORS = [
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
    pytest.param(
        "mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no GPU")
    ),
]


@pytest.mark.parametrize("device", ["cpu", *ACCELERATORS])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_tensors_of_any_device_agree(device, dtype):
    maps = torch.rand(4, 8, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    masks = maps + torch.linspace(0, 0.5, 288).view(4, 8, 9) > 1
    expected = pixel_metrics(maps.double().numpy(), masks.numpy())
    assert pixel_metrics(maps.to(device).requires_grad_(), masks.to(device)) == expected


def test_pixels_from_arrays_lists_and_iterators_agree(monkeypatch):
    rng = np.random.default_rng(0)
    maps = rng.gamma(4, 2, (12, 40, 50)).astype(np.float32)
    masks = rng.random((12, 40, 50)) < 0.02
    masks[:6] = False  # normal images count
    expected = sklearn_all(masks.ravel(), maps.ravel())
    for spool in (100, counting.SPOOL):
        monkeypatch.setattr(counting, "SPOOL", spool)
        for found in (
            pixel_metrics(maps, masks),
            pixel_metrics(torch.tensor(maps), torch.tensor(masks)),
            pixel_metrics(list(maps), list(masks)),
            pixel_metrics(
                (maps[i : i + 5] for i in (0, 5, 10)), (masks[i : i + 5] for i in (0, 5, 10))
            ),
            pixel_metrics(
                [maps[:3, :7], maps[:3, 7:], maps[3:]], [masks[:3, :7], masks[:3, 7:], masks[3:]]
            ),
        ):
            for name, value in expected.items():
                assert getattr(found, name) == pytest.approx(value, abs=1e-12)
        assert found.prevalence == pytest.approx(masks.mean())


def naive_aupro(maps, masks, limit):
    """The published definition, literally: every threshold, every region by itself."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        labelled, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [scores[labelled == number] for number in range(1, count + 1)]
    normal, points = maps[~masks], [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        overlap = np.mean([(region >= threshold).mean() for region in regions])
        points.append(((normal >= threshold).mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (min(x1, limit) - x0) * (y0 + y1) / 2
        if x1 > limit:
            break
    return area / limit


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 3, 20, None]),  # how many distinct scores beyond one; None: no ties
    st.floats(0.02, 0.95),
    st.sampled_from([0.01, 0.05, 0.3, 0.77, 1.0]),
)
def test_aupro_is_the_published_one(seed, steps, density, limit):
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(3, 7, 9)).astype(np.float32)
    masks = rng.random(maps.shape) < density * (np.arange(3) > 0)[:, None, None]
    masks[1, 0, 0], masks[2, 6, 8] = True, False
    maps = maps + masks
    maps = maps if steps is None else np.floor(maps.clip(0, 0.99) * steps)
    expected = pytest.approx(naive_aupro(maps, masks, limit), abs=1e-12)
    assert aupro(maps, masks, limit) == expected
    assert pixel_metrics(iter(maps), iter(masks), limit).aupro == expected
    once = metrics.weighted(masks, maps, np.ones((1, 3)), limit)
    assert once["aupro"][0] == expected


def test_aupro_in_closed_form():
    # One normal pixel of four above the region: its overlap is 1 from a rate of 1/4 on.
    maps, masks = np.array([[5, 4, 3, 2, 1]]), np.array([[0, 1, 0, 0, 0]])
    for limit in (0.2, 0.25, 0.5, 1.0):
        assert aupro(maps, masks, limit) == pytest.approx(max(0, limit - 0.25) / limit)
    # Constant scores: a straight line from (0, 0) to (1, 1).
    assert aupro(np.ones((1, 5)), masks, 0.3) == pytest.approx(0.15)
    # A small region counts as much as a large one, and a corner joins what it touches.
    masks = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    maps = np.where(masks, 2, 1)
    maps[3, 0] = 0
    assert aupro(maps, masks, 0.5) == pytest.approx(1 / 2)


def test_regions_end_with_their_image():
    rng = np.random.default_rng(0)
    maps, masks = rng.normal(size=(4, 6, 6)), np.ones((4, 6, 6), bool)
    masks[:, 2:4] = False  # what is at the bottom of one touches the top of the next
    expected = naive_aupro(maps, masks, 0.3)
    assert aupro(maps, masks) == pytest.approx(expected)
    assert aupro([maps[:3], maps[3]], [masks[:3], masks[3]]) == pytest.approx(expected)
    assert aupro(torch.tensor(maps)[:, None], torch.tensor(masks)[:, None]) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("tied", [False, True])
def test_curves_are_sklearns_and_thinning_keeps_the_area(tied):
    rng = np.random.default_rng(0)
    labels = rng.random(40_000) < 0.1
    scores = rng.normal(size=40_000) + 1.5 * labels
    scores = scores.round(1) if tied else scores
    full, thin = (metrics.roc_curve(labels, scores, t) for t in (0, 1e-6))
    assert sk.auc(full.x, full.y) == pytest.approx(auroc(labels, scores), abs=1e-12)
    assert sk.auc(thin.x, thin.y) == pytest.approx(auroc(labels, scores), abs=1e-6)
    x, y, _ = sk.roc_curve(labels, scores)
    grid = np.linspace(0, 1, 500)
    assert np.abs(np.interp(grid, thin.x, thin.y) - np.interp(grid, x, y)).max() < 0.006

    full, thin = (metrics.pr_curve(labels, scores, t) for t in (0, 1e-6))
    assert sk.auc(full.x, full.y) == pytest.approx(aupr(labels, scores), abs=1e-12)
    assert sk.auc(thin.x, thin.y) == pytest.approx(aupr(labels, scores), abs=1e-6)
    assert len(thin.x) < 1200


def test_confusion_is_sklearns():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(200) < 0.3, rng.integers(0, 9, 200)
    for threshold in (-1, 4, 4.5, 9):
        tn, fp, fn, tp = sk.confusion_matrix(labels, scores >= threshold, labels=[0, 1]).ravel()
        assert metrics.confusion(labels, scores, threshold) == (tp, fp, fn, tn)


def test_bootstrap_intervals_equal_resampling_by_hand():
    rng = np.random.default_rng(1)
    labels = rng.random(120) < 0.3
    scores = (rng.normal(size=120) + labels).round(1)
    found = metrics.bootstrap(labels, scores, repeats=400, seed=3)
    weights = np.random.default_rng(3).multinomial(120, [1 / 120] * 120, 400)
    by_hand = [sklearn_all(labels.repeat(w), scores.repeat(w)) for w in weights]
    for name, interval in found.items():
        expected = np.quantile([values[name] for values in by_hand], [0.025, 0.975])
        assert interval == pytest.approx(expected, abs=1e-9), name


def test_pixels_are_resampled_by_image():
    rng = np.random.default_rng(1)
    masks = np.zeros((30, 20, 20), bool)
    masks[::2, 5:9, 5:9] = True
    maps = rng.normal(size=(30, 20, 20)) + masks * rng.gamma(2, 1, (30, 1, 1))
    found = metrics.bootstrap(masks, maps, repeats=100, seed=0)
    weights = np.random.default_rng(0).multinomial(30, [1 / 30] * 30, 100)
    drawn = [(masks.repeat(w, 0), maps.repeat(w, 0)) for w in weights]
    by_hand = {
        "aupr": [sklearn_all(truth.ravel(), scores.ravel())["aupr"] for truth, scores in drawn],
        "aupro": [aupro(scores, truth) for truth, scores in drawn],
    }
    for name, values in by_hand.items():
        assert found[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=2e-3)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [1.0, 2.0], "labels: all are 0, there is no anomaly"),
        ([1, 1], [1.0, 2.0], "labels: all are 1"),
        ([0, 1], [1.0, np.nan], "scores: 1 are NaN or infinite"),
        ([0, 1], [1.0, np.inf], "scores: 1 are NaN or infinite"),
        ([0, 1, 1], [1.0, 2.0], r"labels and scores: shapes \(3,\) and \(2,\) differ"),
        ([0, 3], [1.0, 2.0], "labels: expected 0 and 1, found 3 .*pass labels > 0"),
        ([0, 255], [1.0, 2.0], "pass labels > 0"),
        ([0, 1, None], [1.0, 2.0, 3.0], "labels: expected 0 and 1, found None"),
        (pd.array([0, 1, None]), [1.0, 2.0, 3.0], "labels: expected 0 and 1, found nan"),
        ([], [], "scores: there are none"),
        ([0, 1], ["a", "b"], "scores: .* are not real numbers"),
    ],
)
def test_bad_input_is_named(labels, scores, message):
    for metric in (auroc, aupr, average_precision, max_f1, metrics.bootstrap):
        with pytest.raises(ValueError, match=message):
            metric(labels, scores)


def test_bootstrap_of_a_difference_is_paired():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    scores = labels + rng.normal(size=120)
    same = metrics.bootstrap_difference(labels, scores, 3 * scores + 1, repeats=50)
    assert same["aupr"] == pytest.approx((0, 0, 0), abs=1e-12)
    worse = scores + 1.5 * rng.normal(size=120)
    found = metrics.bootstrap_difference(labels, scores, worse, repeats=200)
    difference, low, high = found["aupr"]
    assert 0 < low < difference < high
    assert difference == pytest.approx(aupr(labels, scores) - aupr(labels, worse))


def test_fractional_weights_are_those_of_samples():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(80) < 0.3, rng.normal(size=80).round(1)
    weights = np.vstack([np.full(80, 0.01), rng.random((3, 80)) * [[0.001], [1], [50]]])
    found = metrics.weighted(labels, scores, weights)
    for number, weight in enumerate(weights):
        auroc_, ap = (
            score(labels, scores, sample_weight=weight)
            for score in (sk.roc_auc_score, sk.average_precision_score)
        )
        assert found["auroc"][number] == pytest.approx(auroc_)
        assert found["average_precision"][number] == pytest.approx(ap)
    assert found["average_precision"][0] == pytest.approx(average_precision(labels, scores))


def test_a_metric_is_one_record(monkeypatch):
    def recall_without_false_alarms(counts):
        free = np.where(counts.at_or_above == 0, counts.positives, 0)
        return free.sum(-1) / counts.positive_total[..., 0]

    record = measures.Metric("recall at 0", recall_without_false_alarms)
    monkeypatch.setitem(measures.METRICS, "free_recall", record)
    labels, scores = [0, 0, 1, 1, 1], [0.1, 0.4, 0.35, 0.8, 0.9]
    found, spread = evaluate(labels, scores), metrics.bootstrap(labels, scores, repeats=50)
    rows = results.rows(found, spread, task="detection").set_index("metric")
    assert found.free_recall == rows.value["recall at 0"] == pytest.approx(2 / 3)
    assert 0 <= rows.low["recall at 0"] < rows.high["recall at 0"] == 1


def test_the_metrics_alone_load_no_torch():
    code = "import sys; from spdlib.metrics import auroc; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_bad_pixels_are_named():
    maps, masks = np.ones((2, 4, 4)), np.zeros((2, 4, 4), int)
    with pytest.raises(ValueError, match=r"masks: all are 0, .* mask > 0"):
        pixel_metrics(maps, masks)
    masks[0, 0, 0] = 4
    with pytest.raises(ValueError, match="pass masks > 0"):
        pixel_metrics(maps, masks)
    with pytest.raises(ValueError, match=r"maps: there are more batches than masks"):
        pixel_metrics(list(maps), list(masks > 0)[:1])
    with pytest.raises(ValueError, match=r"masks\[1\]: expected 0 and 1"):
        pixel_metrics(list(maps), list(masks[::-1]))
    with pytest.raises(ValueError, match="batch 1 is float32"):
        pixel_metrics([maps[0], maps[1].astype(np.float32)], list(masks > 0))
    with pytest.raises(ValueError, match="maps: there are none"):
        pixel_metrics([], [])
    for limit in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"limit: .* in \(0, 1\]"):
            aupro(maps, masks > 0, limit)
    for truth, message in ((masks * 0, "all are 0"), (masks * 0 + 1, "all are 1")):
        with pytest.raises(ValueError, match=f"masks: {message}"):
            aupro(maps, truth)
    with pytest.raises(ValueError, match="regions are looked for in images"):
        aupro(maps.ravel(), (masks > 0).ravel())
    assert pixel_metrics(maps.ravel(), (masks > 0).ravel()).aupro is None
