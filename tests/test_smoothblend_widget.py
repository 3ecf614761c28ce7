"""The explorer of SmoothBlend, used as a reader uses it, and the draw that it keeps."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from spdlib.datasets.photographs import photographs
from spdlib.notebooks.explorers.explorer import errors
from spdlib.notebooks.explorers.smoothblend import (
    GAP,
    HEIGHT,
    LINE,
    PANEL,
    WIDTH,
    scene,
    smoothblend_explorer,
)
from spdlib.smoothblend import AREA, ASPECT, SmoothBlend

SIZE = 64


@pytest.fixture(scope="module")
def images():
    photos = {name: photo[:, :, :SIZE] for name, photo in photographs(SIZE).items()}
    return {"photographs": photos, "noise": {"grey": torch.rand(1, SIZE, SIZE).expand(3, -1, -1)}}


@pytest.fixture
def box(images):
    return smoothblend_explorer(images)


def panel(box, row, column):
    pixels = np.asarray(Image.open(io.BytesIO(box.picture.value)).convert("RGB"))
    top, left = LINE + row * (PANEL + LINE), column * (PANEL + GAP)
    return pixels[top : top + PANEL, left : left + PANEL]


def test_every_control_changes_the_picture(box):
    assert errors(box) == []
    seen = {box.picture.value}
    settings = {"sigma": 1.5, "jitter": 0.4, "area": (0.01, 0.1), "aspect": (3.0, 10.0), "gain": 8,
                "foreground": "mean", "weak": True, "seed": 7,
                "number": 1, "data": "noise"}  # fmt: skip
    assert set(settings) == set(box.controls)
    for name, value in settings.items():
        assert box.controls[name].value != value
        box.controls[name].value = value
        assert errors(box) == []
        assert box.picture.value not in seen
        seen.add(box.picture.value)
    box.controls["data"].value = "photographs"
    assert errors(box) == [] and len(box.controls["number"].options) == 2


def test_foregrounds_stand_side_by_side(box):
    first = {}
    for kind in ("zero", "mean", "image", "context"):
        box.controls["foreground"].value = kind
        first[kind] = panel(box, 0, 2)
    box.controls["foreground"].value = "all, side by side"
    assert errors(box) == []
    for column, blended in enumerate(first.values()):
        assert np.array_equal(panel(box, 0, column), blended)
    before = box.picture.value
    box.controls["gain"].value = 16
    assert box.picture.value != before


def test_new_draw_takes_the_next_seed(box):
    before = box.picture.value
    box.new_draw.click()
    assert box.controls["seed"].value == 1
    assert errors(box) == [] and box.picture.value != before
    box.controls["seed"].value = 0
    assert box.picture.value == before


def test_it_shows_image_mask_blend_and_difference(images, box):
    box.controls["sigma"].value = 2.0
    shown = scene(images["photographs"]["china"], sigma=2.0)
    # Enlarged from 64 to 224 pixels by repeating them: every 3.5th is as it was.
    near = np.minimum(((np.arange(SIZE) + 0.5) * PANEL / SIZE).astype(int), PANEL - 1)
    for column, expected in ((1, shown.alpha.expand(3, -1, -1)), (2, shown.blended)):
        pixels = panel(box, 0, column)[np.ix_(near, near)]
        assert np.abs(pixels - 255 * expected.permute(1, 2, 0).numpy()).max() <= 0.51
    # Nothing but the outlines differs from the image; the difference is blank off the support.
    image = panel(box, 0, 0)[np.ix_(near, near)] - 255 * shown.image.permute(1, 2, 0).numpy()
    assert (np.abs(image).max(2) > 0.51).mean() < 0.1
    change = panel(box, 0, 3)[np.ix_(near, near)]
    still = (shown.alpha[0] == 0).numpy()
    assert (change[still] >= 245).all() and (change[~still] < 200).any()
    assert Image.open(io.BytesIO(box.picture.value)).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("seed", range(20))
def test_a_slider_leaves_the_rest_of_the_draw(images, seed):
    image = images["photographs"]["china"]
    plain = scene(image, seed=seed)

    def centres(shown):
        boxes = torch.cat([shown.draw.source_boxes, shown.draw.target_boxes]).double()
        return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes

    for settings in ({"sigma": 9.0}, {"jitter": 0.5}, {"weak": True}):
        other = scene(image, seed=seed, **settings)
        assert torch.equal(centres(other)[1], centres(plain)[1])
        if "jitter" not in settings:
            assert torch.equal(other.draw.jitter, plain.draw.jitter)
    # A larger or longer patch keeps its centre, to half a pixel, unless the border is in the way.
    for settings in ({"area": (0.03, 0.03)}, {"aspect": (0.2, 0.2)}, {"aspect": (6.0, 6.0)}):
        other = scene(image, seed=seed, **settings)
        assert torch.equal(other.draw.jitter, plain.draw.jitter)
        places, boxes = centres(other)
        inside = (boxes[:, :2] > 0) & (boxes[:, 2:] < SIZE)
        assert ((places - centres(plain)[0]).abs()[inside] <= 1).all()
        assert (boxes >= 0).all() and (boxes <= SIZE).all()
    # A stronger jitter moves each factor further the way it went.
    stronger = scene(image, jitter=0.5, seed=seed).draw.jitter - torch.tensor([1, 1, 1, 0])
    weaker = plain.draw.jitter - torch.tensor([1, 1, 1, 0])
    torch.testing.assert_close(stronger, 5 * weaker, rtol=0, atol=1e-5)


def test_it_starts_as_the_paper_has_it(images, box):
    values = {name: control.value for name, control in box.controls.items()}
    assert values["area"] == AREA and values["aspect"] == ASPECT and not values["weak"]
    assert values["sigma"] == pytest.approx(8 * SIZE / 224)
    image = images["photographs"]["china"]
    expected = SmoothBlend()(image, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scene(image).blended, expected)
