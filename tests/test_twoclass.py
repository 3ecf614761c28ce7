"""Two-class training: exact masks, exact orders, the encoder's own weights, exact resume."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats
from torchvision import tv_tensors

from spdlib import intervals, results, twoclass
from spdlib.datasets import SampleImages
from spdlib.datasets.protocols import few_shot
from spdlib.datasets.samples import make_table
from spdlib.encoders import load_encoder
from spdlib.images import Images
from spdlib.loop import Callback
from spdlib.metrics import aupr, evaluate
from spdlib.twoclass import Classifier, Segmenter, shots
from spdlib.twoclass.augmentation import Augment, TrainingImages, augmentation, batch_order
from spdlib.twoclass.models import focal_loss
from spdlib.twoclass.presets import table as preset_table

SIZE = 64
SMALL = {"size": SIZE, "batch_size": 4, "learning_rate": 1e-3, "optimizer": "adam"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Six normal images of noise, four with a bright square, and its mask."""
    folder, rows = tmp_path_factory.mktemp("images"), []
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(40, 90, (SIZE, SIZE, 3), dtype=np.uint8)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        if i >= 6:
            y, x = rng.integers(4, 36, 2)
            mask[y : y + 22, x : x + 16] = 255
            pixels[mask > 0] = 220
        Image.fromarray(pixels).save(folder / f"{i}.png")
        Image.fromarray(mask).save(folder / f"{i}_mask.png")
        rows.append(
            {
                "path": str(folder / f"{i}.png"),
                "mask_path": str(folder / f"{i}_mask.png") if i >= 6 else None,
                "label": int(i >= 6),
                "category": "noise",
                "defect": "square" if i >= 6 else "good",
                "split": "train",
            }
        )
    return make_table(rows)


@pytest.fixture(scope="module")
def images(table):
    return Images(table, SIZE)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("efficientnet_lite0", "imagenet")


def settings(task, **changes):
    return twoclass.settings(task, few_shot=True, **{**SMALL, **changes})


# Images and their order


def test_decoded_images_are_the_data_sets_own(images, table):
    samples = SampleImages(table, SIZE, resize=SIZE)
    for i in (0, 9):
        for name in ("image", "mask", "label", "index"):
            assert torch.equal(*(torch.as_tensor(s[i][name]) for s in (images, samples)))
    part = images.of(table.iloc[[7, 2]])
    assert torch.equal(part[0]["image"], images[7]["image"]) and part[1]["label"] == 0
    with pytest.raises(KeyError, match=r"elsewhere\.png"):
        images.of(table.assign(path="elsewhere.png"))


@pytest.mark.parametrize("name", get_args(Augment))
def test_a_mask_and_its_image_stay_aligned_to_the_pixel(name):
    rng = np.random.default_rng(1)
    mask = torch.from_numpy(rng.random((1, 48, 48)) < 0.3)
    image = torch.where(mask, 200, 50).to(torch.uint8).expand(3, -1, -1)
    change = augmentation(name, 48)
    torch.manual_seed(0)
    moved = 0
    for _ in range(40):
        after, truth = change(tv_tensors.Image(image), tv_tensors.Mask(mask))
        assert torch.equal(after.min(0).values > 125, truth[0])
        assert torch.equal(after.max(0).values > 125, truth[0])
        moved += not torch.equal(truth, mask)
    assert (moved == 0) == (name == "none")


def test_a_place_looks_the_same_whatever_came_before(images):
    order = batch_order(images.table.label, 3, 4, "none", seed=0)
    first, again = (TrainingImages(images, order, "shifts", seed=5) for _ in range(2))
    before = torch.get_rng_state()
    wanted = [first[place]["image"] for place in range(12)]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    for place in (11, 3, 7):
        assert torch.equal(again[place]["image"], wanted[place])
    other = TrainingImages(images, order, "shifts", seed=6)
    assert not all(torch.equal(other[p]["image"], wanted[p]) for p in range(12))


def test_all_images_pass_before_one_comes_again():
    labels = [0] * 7 + [1] * 3
    order = batch_order(labels, steps=10, batch_size=4, balance="none", seed=3)
    for start in range(0, 40, 10):
        assert sorted(order[start : start + 10]) == list(range(10))
    balanced = batch_order(labels, steps=6, batch_size=5, balance="sampling", seed=3).reshape(6, 5)
    assert ((balanced >= 7).sum(1) == 2).all()  # three anomalies: all come equally often
    assert np.bincount(balanced.ravel(), minlength=10)[7:].tolist() == [4, 4, 4]
    assert set(np.bincount(balanced.ravel(), minlength=10)[:7]) <= {2, 3}


def test_orders_are_the_same_on_every_platform():
    order = batch_order([0, 0, 0, 1, 1], steps=2, batch_size=4, balance="sampling", seed=0)
    assert order.tolist() == [0, 3, 2, 4, 1, 4, 3, 2]


# Models


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "resnet50"])
def test_the_unet_carries_the_encoders_weights(name):
    torch.manual_seed(0)
    encoder = load_encoder(name)
    with torch.no_grad():  # statistics of its own, too
        encoder.train()(torch.rand(4, 3, 64, 64))
    encoder.eval()
    model = Segmenter(encoder, 32).eval()
    x = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        stages = model.unet.encoder((x - model.mean) / model.std)[-4:]
        for ours, theirs in zip(stages, encoder.stages(x, 4), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert model(x).shape == (2, 64, 96)
    assert all(p.requires_grad for p in model.parameters())


def test_a_classifier_is_the_encoder_and_a_head(encoder):
    model = Classifier(encoder, seed=1).eval()
    x = torch.rand(2, 3, SIZE, SIZE)
    logits = encoder(x) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), logits)
    log_odds = torch.log_softmax(logits, 1)
    torch.testing.assert_close(model.score(x), log_odds[:, 1] - log_odds[:, 0])
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(model.head.weight, Classifier(encoder, seed=1).head.weight)


def test_focal_loss_is_its_formula():
    x = torch.linspace(-4, 4, 24, dtype=torch.float64).view(2, 3, 4)
    y = (torch.arange(24) % 3 == 0).view(2, 3, 4)
    for gamma, alpha in ((2.0, 0.25), (0.5, 0.9), (2.0, None)):
        p = 1 / (1 + torch.exp(-x))
        p_t = torch.where(y, p, 1 - p)
        weight = 1.0 if alpha is None else y.double() * (2 * alpha - 1) + 1 - alpha
        expected = (-weight * (1 - p_t) ** gamma * p_t.log()).mean()
        assert focal_loss(x, y, gamma, alpha).item() == pytest.approx(expected.item(), rel=1e-9)
    plain = F.binary_cross_entropy_with_logits(x, y.double())
    assert focal_loss(x, y, 0.0, None).item() == pytest.approx(plain.item(), rel=1e-9)


def test_weights_make_both_classes_count_the_same(encoder):
    model = Classifier(encoder).eval()
    x = torch.rand(4, 3, SIZE, SIZE)
    batch = {"image": x, "label": torch.tensor([0, 0, 0, 1])}
    weighted = model.loss(batch, settings("detection", balance="weights"), share=0.25)
    single = F.cross_entropy(model(x), batch["label"], reduction="none")
    assert weighted.item() == pytest.approx((single[:3].mean() + single[3]).item() / 2, rel=1e-5)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_few_iterations_overfit_two_images(task, encoder, images):
    two = images.of(images.table.iloc[[0, 8]])
    model = Classifier(encoder) if task == "detection" else Segmenter(encoder, 32)
    rate = 3e-3 if task == "detection" else 1e-2
    wanted = settings(task, iterations=10, augment="none", balance="none", batch_size=2,
                      learning_rate=rate)  # fmt: skip
    untouched = {name: value.clone() for name, value in encoder.state_dict().items()}
    history = twoclass.train(model, two, wanted)
    assert len(history) == 10 and history.loss.iloc[-1] < 0.4 * history.loss.iloc[0]
    found = model.train()  # with the batch's statistics, as it was trained
    x, y = torch.stack([i["image"] for i in two]), torch.tensor([0, 1])
    with torch.no_grad():
        scores = found.score(x)
    if task == "detection":
        assert ((scores > 0) == (y == 1)).all()
    else:
        assert evaluate(two.masks.numpy().ravel(), scores.numpy().ravel()).aupr > 0.75
    for name, value in encoder.state_dict().items():  # a copy was trained
        assert torch.equal(value, untouched[name])


# Training


def weights(model):
    return torch.cat([p.detach().ravel() for p in model.state_dict().values()])


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_resume_equals_uninterrupted(task, encoder, images, tmp_path, monkeypatch):
    monkeypatch.setattr(twoclass.training, "EVERY", 2)
    make = {
        "detection": lambda: Classifier(encoder),
        "segmentation": lambda: Segmenter(encoder, 32),
    }
    wanted = settings(task, iterations=5, augment="shifts")
    whole = make[task]()
    history = twoclass.train(whole, images, wanted)

    class Stop(Callback):
        def on_step(self, training):
            if training.step == 3:
                raise KeyboardInterrupt

    interrupted = make[task]()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        twoclass.train(interrupted, images, wanted, folder=tmp_path, callbacks=[Stop()])
    resumed = make[task]()
    after = twoclass.train(resumed, images, wanted, folder=tmp_path)
    pd.testing.assert_frame_equal(history, after)
    assert torch.equal(weights(whole), weights(resumed))
    with pytest.raises(ValueError, match="other settings; take another folder"):
        changed = wanted.model_copy(update={"seed": 1})
        twoclass.train(make[task](), images, changed, folder=tmp_path)


ONE_STEP = """
import os, sys
import pandas as pd, torch
from spdlib import twoclass
from spdlib.encoders import load_encoder
from spdlib.images import Images

if __name__ == "__main__":
    table, out = pd.read_pickle(sys.argv[1]), sys.argv[2]
    settings = twoclass.settings("detection", True, iterations=1, batch_size=8, size=64,
                                 optimizer="sgd", learning_rate=1e-2)
    model = twoclass.Classifier(load_encoder("efficientnet_lite0", "imagenet"))
    twoclass.train(model, Images(table, 64), settings, accelerator="cpu", devices=2)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        torch.save(dict(model.named_parameters()), out)
"""


@pytest.mark.slow
def test_two_processes_take_the_step_that_one_takes(encoder, table, tmp_path):
    (tmp_path / "step.py").write_text(ONE_STEP)
    table.to_pickle(tmp_path / "table.pkl")
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *run, "step.py", "table.pkl", "model.pt"]
    folder = {"PYTHONPATH": str(Path(twoclass.__file__).parents[2])}
    subprocess.run(command, cwd=tmp_path, env={**os.environ, **folder}, check=True, timeout=300,
                   capture_output=True)  # fmt: skip
    alone = Classifier(encoder)
    wanted = settings("detection", iterations=1, batch_size=8, optimizer="sgd", learning_rate=1e-2)
    twoclass.train(alone, Images(table, SIZE), wanted, accelerator="cpu")
    shared = torch.load(tmp_path / "model.pt", weights_only=True)
    start = dict(Classifier(encoder).named_parameters())
    moved = sum(((p - start[name]) ** 2).sum() for name, p in alone.named_parameters()) ** 0.5
    apart = sum(((p - shared[name]) ** 2).sum() for name, p in alone.named_parameters()) ** 0.5
    assert apart < 0.05 * moved  # statistics of half a batch would take another step altogether


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_frozen_encoder_stays_as_it_is(task, encoder, images):
    model = Classifier(encoder) if task == "detection" else Segmenter(encoder, 32)
    part = "encoder." if task == "detection" else "unet.encoder."
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twoclass.train(model, images, settings(task, iterations=3, freeze=True, weight_decay=0.1))
    for name, value in model.state_dict().items():  # running statistics among them
        if name.startswith(part):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(weights(model), torch.cat([v.ravel() for v in before.values()]))


def test_predictions_do_not_depend_on_the_batch(encoder, images):
    model = Segmenter(encoder, 32)
    one, all_ = (twoclass.predict(model, images, batch_size) for batch_size in (1, 10))
    np.testing.assert_allclose(one.maps, all_.maps, atol=1e-4)
    assert one.labels.tolist() == images.table.label.tolist()
    assert np.array_equal(one.masks, images.masks.numpy())
    np.testing.assert_allclose(one.scores, one.maps.reshape(10, -1).max(1))


def test_a_probe_does_not_care_for_the_length_of_features():
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 20)
    features = rng.normal(size=(40, 6)) + 3 + 3 * labels[:, None] * np.eye(6)[0]
    train, test = slice(0, 20), slice(20, 40)
    scores = twoclass.probe(features[train], labels[train], features[test])
    assert aupr(labels[test], scores) > 0.8
    longer = features * rng.uniform(0.5, 20, size=(40, 1))
    again = twoclass.probe(longer[train], labels[train], longer[test])
    np.testing.assert_allclose(again, scores, rtol=1e-3, atol=1e-4)


# Errors and settings


def test_errors_say_what_is_wrong(encoder, images, table):
    detection, segmentation = settings("detection"), settings("segmentation")
    with pytest.raises(ValueError, match="none of 6 is anomalous"):
        twoclass.train(Classifier(encoder), images.of(table.iloc[:6]), detection)
    with pytest.raises(ValueError, match="none of 4 is normal"):
        twoclass.check_images(images.of(table.iloc[6:]), "detection")
    masked = table.assign(mask_path=[*table.mask_path[:9], None])
    with pytest.raises(ValueError, match=r"without a mask: 1 of 4, the first .*9\.png"):
        twoclass.train(Segmenter(encoder, 32), Images(masked, SIZE), segmentation)
    empty = table.assign(mask_path=table.mask_path.str.replace(r"\d_mask", "0_mask", regex=True))
    with pytest.raises(ValueError, match="masks are empty at 64 pixels"):
        twoclass.check_images(Images(empty, SIZE), "segmentation")
    with pytest.raises(ValueError, match="settings: for segmentation, the model is one for det"):
        twoclass.train(Classifier(encoder), images, segmentation)
    with pytest.raises(ValueError, match="labels: a class is missing"):
        twoclass.probe(np.ones((2, 3)), [1, 1], np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"augment: .*'none', 'flips' or 'shifts', not 'blur'"):
        settings("detection", augment="blur")


def test_settings_are_checked_and_the_papers_are_there():
    paper = {
        (task, few): twoclass.settings(task, few, "paper")
        for task in ("detection", "segmentation")
        for few in (False, True)
    }
    assert {s.learning_rate for s in paper.values()} == {1e-4}
    assert {s.optimizer for s in paper.values()} == {"sgd"}
    assert [s.epochs for s in paper.values()] == [80, None, 80, None]
    assert [s.iterations for s in paper.values()] == [None, 1000, None, 500]
    assert paper["detection", False].steps(images=33) == 165
    with pytest.raises(ValueError, match="exactly one of them"):
        twoclass.settings("detection", True, epochs=1, iterations=1)
    with pytest.raises(ValueError, match="balance"):
        twoclass.settings("detection", True, balance="luck")
    with pytest.raises(ValueError, match="'laptob' is no preset"):
        twoclass.settings("detection", True, "laptob")
    shown = preset_table()
    assert shown.loc["iterations", "segmentation, few-shot"].startswith("500 → ")


# Comparisons


def test_probes_of_splits_are_scored_on_their_test_images(images):
    table = images.table
    splits = shots.draw(table, [(1, 0), (None, 0)])
    features = np.array([1.0, 0, 0]) + table.label.to_numpy()[:, None] * [0, 0, 5.0]
    found = shots.probes(features, images, splits)
    for case, predicted in found.items():
        test = shots.test_images(splits[case])
        assert predicted.labels.tolist() == test.label.tolist()
        backwards = shots.of_images(predicted, splits[case], test.iloc[::-1])
        assert backwards.scores.tolist() == predicted.scores[::-1].tolist()
    rows = shots.measure(found, "detection", method="x")
    assert (rows.value == 1).all()
    assert rows.protocol.unique().tolist() == ["2-class 1-shot", "2-class high-shot"]
    assert rows.draw.isna().tolist() == [False] * 4 + [True] * 4
    normal = shots.never_tested(table, splits, most=99)
    for split in splits.values():
        assert set(normal.path).isdisjoint(shots.test_images(split).path)
    assert len(normal) and not normal.label.any()


def test_labels_pay_where_the_interval_stays_above_the_line():
    levels = [1, 2, 5, 10, "high-shot"]
    curves = pd.DataFrame({"method": "a", "shots": levels, "mean": 0.9, "low": 0.5})
    curves["low"] = [0.9, 0.5, 0.85, 0.86, 0.9]
    for line, words in ((0.8, "from 5 of each on"), (0.86, "not up to 10 of each")):
        lines = pd.DataFrame({"method": "a", "shots": levels, "mean": line, "low": 0, "high": 1})
        found = shots.verdicts(curves.sample(frac=1, random_state=0), lines).loc["a"]
        assert found["labels pay"] == words
        assert found["high-shot gain"] == pytest.approx(100 * (0.9 - line))


def test_a_curve_takes_its_intervals_from_draws_or_from_the_row():
    table = few_shot_results({"simsiam": [0.6, 0.7, 0.8]}).assign(low=None, high=None)
    table = table.assign(protocol="2-class 5-shot", metric="AU-PR")
    one = table.head(1).assign(protocol="2-class high-shot", value=0.9, low=0.8, high=0.95)
    found = shots.curve(pd.concat([table, one])).set_index("shots")
    expected = stats.t.interval(0.95, 2, 0.7, stats.sem([0.6, 0.7, 0.8]))
    assert found.loc[5, ["low", "high"]].tolist() == pytest.approx(expected)
    assert found.loc["high-shot", ["mean", "low", "high"]].tolist() == [0.9, 0.8, 0.95]


def few_shot_results(values):
    columns = dict.fromkeys(shots.GROUP, "x") | {"seed": 0}
    return pd.DataFrame(
        [
            columns | {"method": method, "draw": draw, "value": value}
            for method, row in values.items()
            for draw, value in enumerate(row)
        ]
    )


def test_paired_differences_are_the_t_tests():
    rng = np.random.default_rng(0)
    luck = rng.uniform(0.3, 0.8, 5)
    ours, theirs = luck + 0.05 + rng.normal(0, 0.01, 5), luck
    table = few_shot_results({"imagenet": theirs, "simsiam": ours})
    (row,) = shots.differences(table).itertuples()
    expected = stats.ttest_rel(ours, theirs).confidence_interval()
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
    assert row.mean == pytest.approx(np.mean(ours - theirs)) and row.n == 5
    shuffled = shots.differences(table.sample(frac=1, random_state=0))
    assert shuffled["mean"].item() == pytest.approx(row.mean)
    alone = intervals.of_means(table, [*shots.GROUP, "method"]).set_index("method")
    assert alone.loc["simsiam", "std"] == pytest.approx(np.std(ours, ddof=1))
    assert alone.loc["simsiam", "high"] - alone.loc["simsiam", "low"] > 3 * (row.high - row.low)
    with pytest.raises(ValueError, match="imagenet lacks a draw"):
        shots.differences(table.drop(index=4))
    with pytest.raises(ValueError, match="baseline: 'moco' is not among imagenet, simsiam"):
        shots.differences(table, "moco")
    with pytest.raises(ValueError, match="duplicate"):
        shots.differences(pd.concat([table, table.head(1)]))
    assert set(shots.GROUP) <= set(results.COLUMNS)


def test_gaps_stand_beside_the_twin_they_are_taken_from():
    rng = np.random.default_rng(0)
    labels, cases = np.array([0, 1] * 20), [(k, d) for k in (5, 10) for d in range(3)]
    found = {
        method: {
            case: twoclass.Predictions(labels, labels + rng.normal(size=40))
            for case in [*cases, (None, 0)]
        }
        for method in ("imagenet", "simsiam", "simsiam_spd")
    }
    columns = dict.fromkeys(("dataset", "category", "downstream_model", "encoder"), "x")
    rows = pd.concat(
        [shots.measure(said, "detection", method=name, **columns) for name, said in found.items()]
    )
    pairs = [("imagenet", "simsiam"), ("simsiam", "simsiam_spd")]
    table = shots.gaps(rows, found, pairs, [5, 10], repeats=20)
    names = ["2-class 5-shot", "2-class 10-shot", "2-class high-shot"]
    assert table.protocol.tolist() == names * 2
    assert table.method.tolist() == ["simsiam"] * 3 + ["simsiam_spd"] * 3
    value = {
        method: {case: aupr(labels, said.scores) for case, said in by_case.items()}
        for method, by_case in found.items()
    }
    expected = [
        np.mean([value[ours][k, d] - value[theirs][k, d] for d in range(3 if k else 1)])
        for theirs, ours in pairs
        for k in (5, 10, None)
    ]
    assert table["mean"].tolist() == pytest.approx(expected)
    assert shots.gaps(rows, found, [], [5, 10]).empty


def test_possible_shots_are_those_that_can_be_drawn():
    for normal, anomalous in ((2, 9), (9, 2), (12, 20), (25, 40), (1, 30)):
        labels = [0] * normal + [1] * anomalous
        table = pd.DataFrame(
            {
                "path": [f"{i}.png" for i in range(len(labels))], "mask_path": None,
                "label": labels, "category": "nut", "defect": "d", "split": "test",
            }
        )  # fmt: skip
        found = shots.possible(table, [1, 2, 5])
        for k in (1, 2, 5):
            if k in found:
                assert (few_shot(table, k).split == "train").sum() == 2 * k
            else:
                with pytest.raises(ValueError, match="nut"):
                    few_shot(table, k)
