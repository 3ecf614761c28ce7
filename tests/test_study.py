"""The study: its images apart, its statistics by hand, its text as computed from its rows."""

import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from spdlib import evaluation, intervals, paths
from spdlib.notebooks.figures import study as figures

sys.path.insert(0, str(paths.root() / "studies"))
study = pytest.importorskip("does_spd_help")
import longer  # noqa: E402
import report  # noqa: E402
import testsets  # noqa: E402

ROWS = figures.read()


def by_hand(arm, seed, test, measure):
    """A value of an arm in percent, the mean over categories, by plain filtering."""
    asked = {"arm": arm, "seed": seed, "test": test, "measure": measure}
    chosen = ROWS[np.logical_and.reduce([ROWS[k] == v for k, v in asked.items()])]
    return 100 * sum(chosen.value) / len(chosen)


def test_rows_are_whole_and_each_is_there_once():
    assert list(ROWS.columns) == list(study.COLUMNS)
    assert ROWS.value.between(0, 1).all()
    assert not ROWS.duplicated(["arm", "seed", "test", "category", "measure"]).any()
    assert ROWS[["command", "commit", "machine", "date"]].notna().all().all()
    assert not ROWS.commit.str.contains("+", regex=False).any()  # of code that was committed
    assert set(ROWS.arm) <= study.CHOICES.keys() | study.ARMS.keys()


def test_rows_of_longer_trainings_are_of_its_plan():
    rows = study.read(longer.CSV)
    assert list(rows.columns) == list(study.COLUMNS) and rows.value.between(0, 1).all()
    assert not rows.duplicated(["arm", "seed", "test", "category", "measure"]).any()
    assert set(zip(rows.arm, rows.seed, strict=True)) <= set(longer.cells())
    assert len(longer.cells()) == len(set(longer.cells()))
    for arm in (arm for pair in longer.CLAIMED for arm in pair):
        assert rows[rows.arm == arm].seed.nunique() >= 3


def test_every_cell_is_planned_once_and_choices_come_first():
    cells = list(study.cells())
    assert len(cells) == len(set(cells))
    parts = [part for part, _, _ in cells]
    assert parts == sorted(parts) and parts.count("choice") == len(study.CHOICES)
    assert {arm for part, arm, _ in cells if part == "test"} == set(study.ARMS)
    assert study.CHOOSING not in {seed for part, _, seed in cells if part == "test"}
    assert figures.ARMS.keys() | {"imagenet", "random"} == study.ARMS.keys()


def test_choices_by_the_best_validation_value_and_not_before_all_are_there():
    rows = [
        {"part": "choice", "arm": arm, "test": test, "measure": measure, "value": value}
        for place, arm in enumerate(study.CHOICES)
        for test, sign in (("validation", 1), ("elpv", -1))
        for measure in (testsets.NEIGHBOURS, testsets.PIXELS)
        for value in (0.5 + sign * 0.01 * place,)
    ]
    assert study.chosen(pd.DataFrame(rows)) == {"pooled": 0.6, "dense": 0.15}
    with pytest.raises(ValueError, match="not run yet"):
        study.chosen(pd.DataFrame(rows[:-1])[lambda t: t.arm != "dense_pull_rate0.15"])


def test_an_arm_with_and_without_spd_is_trained_on_the_same_images_by_the_same_schedule():
    rates = {"pooled": 0.6, "dense": 0.15}
    (with_spd, count), (without, same) = (study.plan(arm, 3, rates) for arm in ("spd", "simsiam"))
    differing = {k for k, v in with_spd.model_dump().items() if v != getattr(without, k)}
    assert count == same == 384 and differing == {"eta"}


@pytest.mark.slow
def test_no_image_is_trained_on_and_tried_on():
    pool = set(testsets.pool().path)
    benches = testsets.benches("elpv")
    tested = set(evaluation.samples("elpv").query("split == 'test'").path)
    assert pool.isdisjoint(tested) and len(pool) > 800
    learned = evaluation.samples("elpv").query("split == 'train'")
    last = learned.groupby("category").tail(testsets.VALIDATION)
    assert pool.isdisjoint(last.path) and len(last) == 2 * testsets.VALIDATION
    for bench in benches:
        tried = set(bench.tasks["validation"])
        assert len(tried) == testsets.VALIDATION
        assert all(tried.isdisjoint(n) for t, n in bench.tasks.items() if t != "validation")


def test_windows_hold_a_whole_box_or_touch_none(tmp_path):
    rng = np.random.default_rng(1)
    for number in range(3):
        board = rng.integers(0, 2, (256, 256)).astype(np.uint8) * 255
        tested = board.copy()
        tested[70:90, 140:150] = 0  # y, x
        for name, image in (("temp", board), ("test", tested)):
            (tmp_path / "7").mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / "7" / f"{number}_{name}.jpg", quality=95)
        (tmp_path / "7_not").mkdir(exist_ok=True)
        (tmp_path / "7_not" / f"{number}.txt").write_text("140 70 150 90 1\n")
    template, tested, masks = testsets.windows(str(tmp_path), 64, 3)
    assert template.shape == tested.shape == (6, 3, 64, 64)
    inside = masks.flatten(1).sum(1)
    assert inside.tolist() == [200, 0] * 3
    difference = (template.int() - tested.int()).abs().amax(1)
    assert (difference[::2][masks[::2]] > 100).float().mean() > 0.3
    assert difference[1::2].max() < 60  # JPEG's own
    with pytest.raises(FileNotFoundError, match="_temp"):
        testsets.windows(str(tmp_path / "7_not"))


def test_holm_is_its_definition():
    p = np.random.default_rng(0).random(12) ** 3
    expected = []
    for one in p:
        below = sorted(p[p <= one])
        expected.append(min(1, max((12 - rank) * other for rank, other in enumerate(below))))
    assert intervals.holm(p) == pytest.approx(expected)


def test_claims_are_paired_t_tests_over_seeds():
    claims = figures.claims(figures.values(ROWS))
    assert len(claims) == 16
    for row in claims.itertuples():
        test, measure, _ = figures.MEASURES[row.measure]
        seeds = [set(ROWS[ROWS.arm == arm].seed) for arm in (row.arm, row.baseline)]
        ours, theirs = (
            [by_hand(arm, seed, test, measure) for seed in sorted(seeds[0] & seeds[1])]
            for arm in (row.arm, row.baseline)
        )
        found = stats.ttest_rel(ours, theirs)
        assert row.n == len(ours) and row.p == pytest.approx(found.pvalue)
        low, high = found.confidence_interval()
        assert (row.low, row.high) == pytest.approx((low, high))
    assert claims.adjusted.to_numpy() == pytest.approx(intervals.holm(claims.p))


def test_text_is_what_the_rows_give():
    found = figures.values(ROWS)
    text = report.results(ROWS, found, figures.against_baselines(found), figures.claims(found))
    assert text in report.DOCS.read_text(encoding="utf-8")
    assert report.longer_results(report.longer_rows()) in report.DOCS.read_text(encoding="utf-8")
    readme = (paths.root() / "README.md").read_text(encoding="utf-8")
    assert report.front(found, figures.claims(found)) in readme
