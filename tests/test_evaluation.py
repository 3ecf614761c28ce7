"""PaDiM's evaluation, small: samples, metrics of resampled images, gains, sizes of defects."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats

from spdlib import evaluation, metrics, results
from spdlib.datasets import check, loader
from spdlib.encoders import load_encoder
from spdlib.evaluation import Evaluation
from spdlib.metrics import cli, maps, resampling
from spdlib.notebooks.figures import padim as plots
from spdlib.padim import PaDiM
from spdlib.progress import Bar

SIZE = 64


@pytest.fixture(scope="module")
def table():
    return evaluation.samples("elpv", ["mono"], train_images=8, test_images=6)


@pytest.fixture(scope="module")
def encoders():
    torch.manual_seed(0)
    imagenet = load_encoder("efficientnet_lite0", "imagenet")
    return {"simsiam": imagenet, "simsiam_spd": load_encoder("efficientnet_lite0")}


@pytest.fixture(scope="module")
def found(table, encoders):
    return evaluation.evaluate(table, encoders, SIZE, n_features=10, batch_size=5, crop=True)


def scored(labels, scores, masks=None, maps=None, held_out=None):
    """An evaluation with given scores, without any encoder; scores and maps by method."""
    size = (len(labels), 4, 4)
    return Evaluation(
        table=pd.DataFrame({
            "path": [f"{i}.png" for i in range(len(labels))],
            "label": labels, "category": "nut", "detection": True,
            "segmentation": masks is not None, "painted": False,
        }),
        masks=torch.zeros(size, dtype=torch.bool) if masks is None else masks,
        scores=scores,
        maps={name: torch.zeros(size) for name in scores} if maps is None else maps,
        held_out={"nut": held_out or {}},
    )  # fmt: skip


def test_painted_defects_stand_in_for_masks_and_stay_out_of_detection():
    table = evaluation.samples("elpv", ["poly", "mono"])
    assert list(table.category.unique()) == ["poly", "mono"]
    test = table[table.split == "test"]
    painted = test[test.defect.str.startswith("painted")]
    assert set(test.defect[test.detection]) == {"good", "defective"}
    assert (painted.segmentation & painted.mask_path.notna()).all()
    assert set(test.defect[test.segmentation]) == {"good", *painted.defect}
    # Half of the held-out normal cells are painted on, the others are normal: 153 and 278.
    assert painted.groupby("category").size().to_dict() == {"mono": 76, "poly": 139}
    normal = test[test.segmentation & (test.label == 0)]
    assert normal.groupby("category").size().to_dict() == {"mono": 77, "poly": 139}
    assert not table.path.duplicated().any()


def test_the_cap_is_for_each_kind(table):
    test = table[table.split == "test"]
    assert (table.split == "train").sum() == 8
    kinds = test.groupby(["label", "detection"]).size()
    assert kinds.to_dict() == {(0, True): 6, (1, False): 6, (1, True): 6}


def test_masks_of_ones_own_are_used_and_nothing_is_painted(tmp_path):
    rng = np.random.default_rng(0)
    for place, count in (("normal", 8), ("anomaly/dent", 3), ("anomaly/other", 2)):
        (tmp_path / place).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{i}.png")
    (tmp_path / "masks" / "dent").mkdir(parents=True)
    for i in range(3):
        mask = Image.new("L", (40, 40))
        mask.paste(255, (10, 10, 20, 20))
        mask.save(tmp_path / "masks" / "dent" / f"{i}.png")
    table = check(evaluation.samples(str(tmp_path)))
    anomalous = table[table.label == 1]
    assert anomalous.detection.all()
    assert anomalous.defect[anomalous.segmentation].tolist() == ["dent"] * 3
    encoder = load_encoder("resnet18")
    found = evaluation.evaluate(table, {"random": encoder}, 32, n_features=5)
    rows = evaluation.measure(found, str(tmp_path), "resnet18", repeats=10)
    assert set(rows.dataset) == {tmp_path.name}
    # Only the masked defects count as anomalous pixels: 3 of 3 + 2 normal images.
    assert len(found.truth(tmp_path.name, "segmentation")) == 3 + (found.table.label == 0).sum()


def parts(folder, normal, anomaly=0, masks=False):
    """A folder of one's own: flat pictures of different colours, anomalies with a grey square."""
    for place, count in (("normal", normal), ("anomaly", anomaly)):
        (folder / place).mkdir(parents=True)
        for i in range(count):
            picture = Image.new("RGB", (80, 80), (90 + i, 120, 60))
            if place == "anomaly":
                picture.paste((200, 200, 200), (10, 10, 30, 30))
            picture.save(folder / place / f"{i}.png")
    if masks:
        (folder / "masks").mkdir()
        for i in range(anomaly):
            mask = Image.new("L", (80, 80))
            mask.paste(255, (10, 10, 30, 30))
            mask.save(folder / "masks" / f"{i}.png")
    return folder


@pytest.fixture
def painted_here(tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_DATA", str(tmp_path / "data"))


def test_without_any_masks_defects_are_painted_on_a_folder(tmp_path, painted_here):
    table = evaluation.samples(str(parts(tmp_path / "mine", 20, 2)))
    held_out = table[(table.split == "test") & (table.label == 0)]
    painted = table[table.painted]
    assert len(painted) == len(held_out) / 2 == held_out.segmentation.sum()
    assert painted.segmentation.all() and not painted.detection.any()
    assert "mine has no masks" in " ".join(evaluation.caveats(table))


def test_each_category_is_measured_on_what_it_has(tmp_path, painted_here):
    parts(tmp_path / "all" / "masked", 8, 3, masks=True)
    parts(tmp_path / "all" / "plain", 8, 3)
    table = evaluation.samples(str(tmp_path / "all"))
    assert table.groupby("category").painted.any().to_dict() == {"masked": False, "plain": True}
    found = evaluation.evaluate(table, {"random": load_encoder("resnet18")}, 32, n_features=5)
    rows = evaluation.measure(found, str(tmp_path / "all"), "resnet18", repeats=10)
    names = rows.groupby(["category", "task"]).dataset.first().to_dict()
    assert names == {
        ("masked", "detection"): "all", ("masked", "segmentation"): "all",
        ("plain", "detection"): "all", ("plain", "segmentation"): "all_painted",
    }  # fmt: skip


def test_good_parts_only_are_measured_on_painted_ones_and_it_is_said(tmp_path, painted_here):
    table = evaluation.samples(str(parts(tmp_path / "fine", 16)))
    test = table[table.split == "test"]
    assert test.painted.sum() == 2 and (test.detection == test.segmentation).all()
    # The images painted on are not their own normal neighbours.
    assert (test.label == 0).sum() == 3 and len(test) == 5
    found = evaluation.evaluate(table, {"random": load_encoder("resnet18")}, 32, n_features=5)
    rows = evaluation.measure(found, str(tmp_path / "fine"), "resnet18", repeats=10)
    assert set(rows.dataset) == {"fine_painted"} and set(rows.task) == {"detection", "segmentation"}
    assert "good parts only" in evaluation.caveats(table)[0]


@pytest.mark.parametrize(("normal", "anomaly"), [(0, 3), (1, 3), (2, 3), (3, 0)])
def test_too_few_normal_images_are_named_before_any_work(tmp_path, painted_here, normal, anomaly):
    with pytest.raises(ValueError, match=r"screws.*two"):
        evaluation.samples(str(parts(tmp_path / "screws", normal, anomaly)))


def test_the_border_is_cut_off_published_data_sets_alone():
    assert evaluation.cropped("elpv") and not evaluation.cropped("path/to/parts")
    assert evaluation.cropped("path/to/parts", True) and not evaluation.cropped("visa", False)


def test_scores_are_those_of_padim_called_by_hand(table, encoders, found):
    train = loader(table[table.split == "train"], SIZE)
    test = loader(table[table.split == "test"], SIZE)
    for method, encoder in encoders.items():
        maps, scores = PaDiM(encoder, 10).fit(train).score(test)
        torch.testing.assert_close(found.maps[method], maps, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(found.scores[method], scores, rtol=1e-3)
    masks = torch.cat([batch["mask"] for batch in test])
    assert torch.equal(found.masks, masks) and masks.any()


def test_rows_hold_the_metrics_of_their_task(found):
    rows = evaluation.measure(found, "elpv", "efficientnet_lite0", repeats=20)
    # Images have no regions, so only segmentation has an AU-PRO.
    assert len(rows) == 2 * (2 * len(results.METRICS) - 1)
    assert set(rows.task[rows.metric == "AU-PRO"]) == {"segmentation"}
    assert set(rows.dataset[rows.task == "detection"]) == {"elpv"}
    assert set(rows.dataset[rows.task == "segmentation"]) == {"elpv_painted"}
    one = rows[(rows.metric == "AU-ROC") & (rows.method == "simsiam")].set_index("task").value
    test = found.table
    real = test.detection.to_numpy()
    assert one.detection == metrics.auroc(test.label[real], found.scores["simsiam"][real])
    pixels = np.flatnonzero(test.segmentation)
    expected = metrics.pixel_metrics(found.maps["simsiam"][pixels], found.masks[pixels])
    assert one.segmentation == expected.auroc
    overlap = rows[(rows.metric == "AU-PRO") & (rows.method == "simsiam")].iloc[0]
    assert overlap.value == expected.aupro and overlap.low <= overlap.value <= overlap.high
    shown = evaluation.summary(rows)
    assert shown.index.get_level_values("method").tolist()[:2] == ["SimSiam", "SimSiam + SPD"]
    assert shown.loc[("detection", "mono", "SimSiam"), "AU-ROC"].startswith(
        f"{100 * one.detection:.1f}  ["
    )
    assert shown.loc[("detection", "mono", "SimSiam"), "AU-PRO"] == ""
    assert shown.loc[("segmentation", "mono", "SimSiam"), "AU-PRO"].startswith(
        f"{100 * overlap.value:.1f}  ["
    )
    assert "AU-PRO" not in evaluation.summary(rows[rows.task == "detection"])
    other = rows.assign(category="poly", value=0.5)
    shown = evaluation.summary(pd.concat([rows, other]))
    mean = shown.loc[("detection", "mean", "SimSiam"), "AU-ROC"]
    assert float(mean) == pytest.approx(50 * (one.detection + 0.5), abs=0.051)


@pytest.mark.parametrize("pixels", [(), (5, 5), (40, 40)], ids=["images", "pixels", "many pixels"])
def test_weighted_metrics_are_those_of_images_repeated(pixels):
    rng = np.random.default_rng(1)
    labels = rng.random((30, *pixels)) < 0.2
    scores = np.round(rng.normal(size=labels.shape) + labels, 1 if pixels == (5, 5) else 6)
    weights = rng.multinomial(30, [1 / 30] * 30, 5)
    found = metrics.weighted(labels, scores, weights)
    tolerance = 2e-3 if labels.size > resampling.LEVELS else 1e-12
    for number, weight in enumerate(weights):
        drawn = np.repeat(np.arange(30), weight)
        if pixels:
            expected = metrics.pixel_metrics(scores[drawn], labels[drawn])
        else:
            expected = metrics.evaluate(labels[drawn], scores[drawn])
        for name in found:
            assert found[name][number] == pytest.approx(getattr(expected, name), abs=tolerance)
    assert found.keys() == results.METRICS.keys() - (set() if pixels else {"aupro"})


def test_gains_are_paired():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    base = rng.normal(size=80) + 1.5 * labels
    better = base + 0.3 * labels  # a little better on each image, not on average only
    found = scored(labels, {"simsiam": base, "simsiam_spd": better, "moco_spd": base})
    gains = evaluation.differences(found, repeats=200)
    assert set(gains.method) == {"simsiam_spd"}
    row = gains[gains.metric == "AU-ROC"].iloc[0]
    assert row.difference == pytest.approx(
        metrics.auroc(labels, better) - metrics.auroc(labels, base)
    )
    # Each one's own interval is far wider than the gain; that of the difference tells it from 0.
    low, high = metrics.bootstrap(labels, base)["auroc"]
    assert high - low > 2 * row.difference and row.low > 0
    said = "By AU-ROC, this SimSiam + SPD encoder is better than this SimSiam one in 1 of 1 comp"
    assert evaluation.verdict(gains, "AU-ROC").startswith(said)
    swapped = scored(labels, {"simsiam": better, "simsiam_spd": base})
    assert "better than this SimSiam one in 0 of 1 comparisons, worse in 1" in evaluation.verdict(
        evaluation.differences(swapped, repeats=200), "AU-ROC"
    )
    same = scored(labels, {"simsiam": base, "simsiam_spd": base})
    gains = evaluation.differences(same, repeats=50)
    assert (gains[["difference", "low", "high"]] == 0).all(axis=None)
    assert "in 0 of 1 comparisons, worse in 0;" in evaluation.verdict(gains)
    alone = evaluation.differences(scored(labels, {"imagenet": base}))
    assert evaluation.verdict(alone).startswith("Nothing to compare")


def test_defects_are_told_apart_by_kind():
    # Two normal images, a real defect, a dark painted one and a bright one on others.
    labels = [0, 0, 1, 1, 1]
    scores = {"simsiam": np.array([1.0, 3, 2, 4, 0]), "simsiam_spd": np.array([1.0, 3, 4, 4, 2])}
    masks = torch.zeros(5, 4, 4, dtype=torch.bool)
    masks[3:, 1:3, 1:3] = True
    maps = {name: masks.float() * torch.tensor(values)[:, None, None]
            for name, values in scores.items()}  # fmt: skip
    found = scored(labels, scores, masks, maps)
    painted = np.array([False, False, False, True, True])
    found.table = found.table.assign(
        painted=painted, detection=~painted, segmentation=[True, True, False, True, True],
        shade=[None, None, None, "dark", "bright"],
    )  # fmt: skip
    table = evaluation.by_defects([found])
    case = ("detection", "nut", "PaDiM", "SimSiam", "AU-ROC")
    assert table.loc[case].to_dict() == {"real": 50, "painted": 50, "dark": 100, "bright": 0}
    pixels = table.loc[("segmentation", "nut", "PaDiM", "SimSiam", "AU-PRO")]
    assert pixels.dark == 100 and pixels.bright == 15 and np.isnan(pixels.real)
    gains = evaluation.differences(found, 50, defects="bright").set_index(["task", "metric"])
    assert gains.difference[("detection", "AU-ROC")] == 0.5
    plain = scored(labels, scores)  # without shades, or anything painted
    assert list(evaluation.by_defects([plain]).columns) == ["real"]


def test_the_alarm_threshold_flags_no_more_than_its_share_of_the_held_out():
    held_out = np.arange(40).astype(np.float32)
    found = scored([0, 1], {"a": np.array([50.0, 60])}, held_out={"a": held_out})
    for share in (0, 0.05, 0.06, 0.5):
        assert (held_out >= found.alarm("nut", "a", share)).sum() == int(share * 40)
    tied = scored([0, 1], {"a": np.ones(2)}, held_out={"a": np.ones(41, np.float32)})
    assert tied.alarm("nut", "a") > 1
    assert np.isinf(scored([0, 1], {"a": np.ones(2)}).alarm("nut", "a"))  # nothing was held out


def test_thresholds_that_one_may_use_stand_beside_the_oracle():
    # Of 20 held out one may be flagged: the threshold is just above 18, and 19 and 30 of the
    # normal test images are flagged. The best F1 is at 25.
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    scores = np.array([3, 18, 19, 30, 5, 25, 40, 50], np.float32)
    held_out = {"a": np.arange(20).astype(np.float32)}
    table = evaluation.thresholds(scored(labels, {"a": scores}, held_out=held_out))
    usable, oracle = table.itertuples()
    assert (usable.chosen_on, usable.images) == ("held-out normal images", 20)
    assert 18 < usable.threshold < 18.001
    assert (usable.false_alarms, usable.recall) == (0.5, 0.75)
    wilson = stats.binomtest(2, 4).proportion_ci(method="wilson")
    assert (usable.false_alarms_low, usable.false_alarms_high) == pytest.approx(tuple(wilson))
    assert (oracle.chosen_on, oracle.images) == (evaluation.ORACLE, 8)
    assert (oracle.threshold, oracle.false_alarms, oracle.recall) == (25, 0.25, 0.75)

    good = scored([0] * 4, {"a": scores[:4]}, held_out=held_out)
    (usable,) = evaluation.thresholds(good).itertuples()
    assert usable.false_alarms == 0.5 and np.isnan([usable.recall, usable.recall_low]).all()
    assert evaluation.measure(good, "nuts", "resnet18").empty
    assert evaluation.recall_by_area(good).empty


@pytest.mark.parametrize(("images", "rests_on"), [(3, 3), (12, 12), (45, 27), (105, 21)])
def test_images_are_held_out_before_they_are_learned(images, rests_on):
    torch.manual_seed(0)
    pictures = torch.rand(images, 3, 32, 32)
    encoder, bar = load_encoder("resnet18"), Bar(images)
    model = PaDiM(encoder, n_features=4)
    source = evaluation._Source([{"image": one} for one in pictures], 10, encoder, gather=True)
    count = partial(evaluation._count, bar=bar, note="")
    scores = evaluation._fit(model, source.read, images, count)
    assert len(scores) == rests_on and model.count == images and bar.count == images
    fold = torch.arange(images) % 5 == 0
    before = PaDiM(encoder, n_features=4).fit([pictures[~fold]])
    _, expected = before.score([pictures[fold]])
    np.testing.assert_allclose(scores[-len(expected) :], expected, rtol=1e-3)
    _, once = PaDiM(encoder, n_features=4).fit([pictures]).score([pictures])
    torch.testing.assert_close(model.score([pictures])[1], once, rtol=1e-3, atol=1e-3)
    with torch.no_grad():  # in the order of the images, though those held out passed apart
        torch.testing.assert_close(*source.features(), encoder(pictures), rtol=1e-3, atol=1e-3)


def test_maps_that_are_written_give_the_same_numbers_again(found, tmp_path):
    rows = evaluation.measure(found, "elpv", "efficientnet_lite0", repeats=20)
    for ending in (".tiff", ".npy"):
        folder = evaluation.write_maps(found, tmp_path / ending[1:], ending)
        for method in found.methods:
            again = cli.measure(maps.find(folder / method, folder / "masks"), repeats=20)
            chosen = (rows.method == method) & (rows.task == "segmentation")
            both = rows[chosen].merge(again, on=["category", "task", "metric"])
            assert len(both) == len(results.METRICS)
            assert (both.value_x == both.value_y).all()


def test_recall_by_area_looks_inside_the_mask():
    # Held-out scores 0 to 19: 5 % of 20 is one image, so the threshold is just above 18.
    masks, maps = torch.zeros(4, 4, 4, dtype=torch.bool), torch.zeros(4, 4, 4)
    for number, (area, inside, outside) in enumerate(
        [(1, 17, 99), (2, 19, 0), (3, 50, 0), (4, 18, 0)]
    ):
        masks[number].view(-1)[:area] = True
        maps[number].view(-1)[0], maps[number].view(-1)[15] = inside, outside
    scores = {"a": np.array([99, 19, 50, 18], np.float32)}
    held_out = {"a": np.arange(20).astype(np.float32)}
    table = evaluation.recall_by_area(scored([1] * 4, scores, masks, {"a": maps}, held_out))
    assert (table.area * 16).tolist() == [1, 2, 3, 4]
    assert table.recall.tolist() == [0, 1, 1, 0]  # a maximum beside the defect finds nothing
    assert table.defects.tolist() == [1] * 4
    # Wilson's interval of 0 in 1, from its closed form: [0, z^2 / (1 + z^2)].
    assert table.low[0] == pytest.approx(0, abs=1e-9)
    assert table.high[0] == pytest.approx(1.96**2 / (1 + 1.96**2), abs=1e-4)


def test_cases_are_where_they_should_be():
    labels, scores = [0, 0, 0, 1, 1, 1], np.array([1.0, 2, 6, 3, 5, 9])
    cases = evaluation.cases(scored(labels, {"a": scores}), "nut", "a", count=2)
    assert [list(rows) for rows in cases.values()][:3] == [[5, 4], [3, 4], [2, 1]]
    # The best F1 is at 3: three of four flagged are anomalous.
    assert list(cases["near the threshold"]) == [3, 1]


def test_figures_show_what_they_are_given(found):
    rows = evaluation.measure(found, "elpv", "efficientnet_lite0", repeats=10)
    dots = plots.scatter(rows).axes[0].get_lines()
    wide = rows[rows.metric == "AU-ROC"].pivot(index="method", columns="task", values="value")
    drawn = {line.get_label(): (*line.get_xdata(), *line.get_ydata()) for line in dots}
    for method, name in (("simsiam", "SimSiam"), ("simsiam_spd", "SimSiam + SPD")):
        assert drawn[name] == tuple(wide.loc[method, ["detection", "segmentation"]])
    rows = found.rows("mono", "segmentation")[-3:]
    images = [torch.rand(3, SIZE, SIZE)] * 3
    maps = {method: found.maps[method][rows] for method in found.methods}
    figure = plots.comparison(images, found.masks[rows], maps, ["a", "b", "c"])
    limits = {ax.get_images()[0].get_clim() for ax in figure.axes[6:12]}
    assert len(limits) == 1
    ends = [float(end) for m in maps.values() for end in (m.min(), m.max())]
    assert limits.pop() == (min(ends), max(ends))


@pytest.mark.parametrize(
    ("dataset", "categories", "message"),
    [
        ("elpv", ["multi"], "categories: multi not among those of ELPV: mono, poly"),
        ("elvp", None, r"did you mean 'elpv'\?"),
    ],
)
def test_what_is_not_there_is_named(dataset, categories, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluation.samples(dataset, categories)
