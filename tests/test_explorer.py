"""The frame of all explorers: what controls do, and what an error leaves."""

import numpy as np
import pandas as pd
import pytest
import torch

from spdlib.evaluation import Evaluation
from spdlib.notebooks.explorers import explorer as frame
from spdlib.notebooks.explorers import metrics, padim
from spdlib.notebooks.figures import style


@pytest.fixture
def box():
    controls = {
        "whole": frame.slider(1, 0, 3),
        "real": frame.slider(0.5, 0, 1, 0.1, description="a share"),
        "stop": frame.stops([1, 100], "{} things".format, 100),
        "span": frame.stops([1, 2, 3], str, (1, 3)),
        "name": frame.menu(range(3), ["one", "two", "\udcffodd"].__getitem__),
    }
    return frame.explorer(controls, lambda **values: repr(values).encode() * (1 // values["whole"]))


def test_the_picture_follows_every_control(box):
    for name, value in {"real": 0.75, "stop": 1, "span": (1, 2), "name": 1}.items():
        box.controls[name].value = value
        assert repr(value).encode() in bytes(box.picture.value) and frame.errors(box) == []
    names = [(control.description, type(control).__name__) for control in box.controls.values()]
    assert names[:2] == [("whole", "IntSlider"), ("a share", "FloatSlider")]


def test_slow_redraws_wait_for_release(box):
    sliders = [c for c in box.controls.values() if hasattr(c, "continuous_update")]
    assert len(sliders) == 4 and not any(slider.continuous_update for slider in sliders)


def test_an_error_leaves_the_picture(box):
    before = box.picture.value
    with pytest.raises(ZeroDivisionError):  # in a notebook, the Output widget shows it
        box.controls["whole"].value = 0
    assert box.picture.value == before
    box.controls["whole"].value = 1
    assert frame.errors(box) == []


def test_menus_take_any_text(box):
    texts = [text for text, _ in box.controls["name"].options]
    assert texts[:2] == ["one", "two"] and all(text.isprintable() for text in texts)
    named = frame.menu(["moco_spd"], style.method_name).options
    assert named == ((style.method_name("moco_spd"), "moco_spd"),)


def test_explorers_open_where_no_image_is_anomalous():
    scores, none = np.array([1.0, 1.0]), [0, 0]
    box = metrics.threshold_explorer(none, scores, ["a.png", "b.png"])
    assert frame.errors(box) == [] and box.picture.value
    columns = {"path": ["a.png", "b.png"], "label": none, "category": "nut", "defect": "good"}
    table = pd.DataFrame(
        columns | {"detection": True, "segmentation": False, "mask_path": None, "split": "test"}
    )
    flat = torch.zeros(2, 4, 4)
    box = padim.threshold_explorer(Evaluation(table, flat.bool(), {"moco": scores}, {"moco": flat}))
    assert frame.errors(box) == [] and box.picture.value
