"""The frame of all explorers: what controls do, and what an error leaves."""

import pytest

from spdlib.notebooks.explorers import explorer as frame
from spdlib.notebooks.figures import style


@pytest.fixture
def box():
    controls = {
        "whole": frame.slider(1, 0, 3),
        "real": frame.slider(0.5, 0, 1, 0.1, description="a share"),
        "stop": frame.stops({"few": 1, "many": 100}, 100),
        "span": frame.stops({"a": 1, "b": 2, "c": 3}, (1, 3)),
        "name": frame.menu([(0, "one"), (1, "two"), (2, "\udcffodd")]),
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
    assert frame.methods(["moco_spd"]) == [("moco_spd", style.method_name("moco_spd"))]
