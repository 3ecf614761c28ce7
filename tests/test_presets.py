"""Settings: what they say, refuse, and how the learning rate runs."""

import math
from dataclasses import replace

import pytest
import torch

from spdlib.encoders import load_encoder
from spdlib.methods import METHODS, method_name
from spdlib.pretraining import Views, objective
from spdlib.pretraining.presets import (
    LAPTOP,
    OPEN_QUESTIONS,
    Settings,
    named,
    open_questions,
    settings,
    table,
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", ["laptop", "paper"])
def test_every_preset_is_complete(method, preset):
    s = settings(method, preset)
    assert s.name == f"{method}_spd" and settings(method, preset, eta=0).name == method
    assert settings(method, preset, eta=0.5).name == f"{method}_spd_eta0.5"
    assert s.encoder == ("resnet50" if preset == "paper" else LAPTOP["encoder"])


@pytest.mark.parametrize(
    "name",
    [
        "moco", "simsiam_spd", "simsiam_dense_image_guard1", "simclr_spd_eta0.5_context",
        "simsiam_spd_cutpaste_no_frozen_statistics", "supervised_spd_cosine", "simsiam_placebo",
        "simsiam_guard2_frozen_batchnorm",
    ],
)  # fmt: skip
def test_a_name_says_how_to_train(name):
    assert named(name).name == name
    with pytest.raises(ValueError, match="'imago' does not say what departs"):
        named("simsiam_spd_imago")


def test_learning_rates_are_the_published_ones():
    # Chen & He: 0.05 x 512 / 256; MoCo v2's script: 0.03 at 256; Chen et al.: 0.3 x 4096 / 256.
    rates = {method: settings(method, "paper").learning_rate for method in METHODS}
    assert rates == pytest.approx({"simsiam": 0.1, "moco": 0.03, "simclr": 4.8, "supervised": 0.1})


def test_schedules():
    cosine = settings("simsiam", "paper", epochs=10)
    for step in (0, 3, 50, 99):
        assert cosine.rate_at(step, 100) == pytest.approx((1 + math.cos(math.pi * step / 100)) / 2)
    warm = settings("simclr", "paper")  # 10 of 100 epochs
    rising = [warm.rate_at(step, 1000) for step in range(100)]
    assert rising == sorted(rising) and rising[0] == pytest.approx(1 / 101) and rising[-1] < 1
    assert warm.rate_at(100, 1000) == 1 and warm.rate_at(999, 1000) < 1e-4
    steps = settings("supervised", "paper")  # 90 epochs
    assert [steps.rate_at(epoch, 90) for epoch in (0, 29, 30, 59, 60, 89)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_texts_of_a_command_line_are_read_as_the_settings_types():
    s = settings("moco", eta="0.5", batch_size="128", stop_gradient="false", seed=None)
    assert (s.eta, s.batch_size, s.stop_gradient, s.seed) == (0.5, 128, False, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"etta": 0.1}, "etta: unknown parameter; did you mean 'eta'"),
        ({"eta": -1}, "eta: input should be greater than or equal to 0"),
        ({"size": 100}, "size: input should be a multiple of 32"),
        ({"queue": 100}, "queue: 100 is no multiple of batch_size"),
        ({"key_splits": 9}, "key_splits: 9 groups of 16 images"),
        ({"blend": "cutpaste", "foreground": "image"}, "foreground: CutPaste pastes hard, image"),
        ({"blend": "mixup"}, "blend: input should be 'smoothblend' or 'cutpaste'"),
        ({"eta": -1, "epochs": 0}, r"eta: (?s:.*)\n  epochs: "),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        settings("moco", **changes)


def test_unknown_methods_and_presets_are_named():
    with pytest.raises(ValueError, match="method: 'byol' is not one of simsiam, moco"):
        settings("byol")
    with pytest.raises(ValueError, match="preset: 'cluster' is not one of laptop, paper"):
        settings("moco", "cluster")


def test_tables_show_departures_and_open_questions():
    shown = table()
    assert list(shown.columns) == list(METHODS)
    assert shown.loc["queue", "moco"] == "65536 → 256" and shown.loc["queue", "simsiam"] == "-"
    for name, value in LAPTOP.items():
        departs = str(settings("simsiam", "paper").model_dump()[name]) != str(value)
        assert (" → " in shown.loc[name, "simsiam"]) == departs
    assert list(open_questions().index) == list(OPEN_QUESTIONS)
    assert all(Settings.model_fields[name].description for name in Settings.model_fields)


def test_a_record_is_all_that_a_new_method_needs(monkeypatch):
    ours = replace(METHODS["simclr"], title="Ours", laptop={"temperature": 0.3})
    monkeypatch.setitem(METHODS, "ours", ours)
    s = settings("ours", size=32)
    assert method_name(s.name) == "Ours + SPD" and table().loc["temperature", "ours"] == "0.1 → 0.3"
    torch.manual_seed(0)
    step = objective(load_encoder("resnet18").train(), s)
    images = torch.randint(256, (4, 3, 37, 37)).byte()
    strong, triplet = Views(s)(images, step.baseline.views, torch.Generator().manual_seed(0))
    assert step.baseline.criterion.temperature == 0.3 and step(strong, triplet)["loss"].isfinite()
