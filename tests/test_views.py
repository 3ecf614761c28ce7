"""Views against torchvision's functional operations with the same parameters."""

import colorsys

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from spdlib.colour import draw_jitter, jitter, no_jitter
from spdlib.smoothblend import SmoothBlend
from spdlib.views import (
    STRONG,
    WEAK,
    StrongView,
    View,
    WeakView,
    crop_and_flip,
    gaussian_blur,
    plain_view,
    spd_triplet,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    # Mid-range colours, so that nothing clips and order of clipping does not matter.
    return 0.35 + 0.3 * torch.rand(5, 3, 60, 80, generator=generator(1))


def test_brightness_contrast_saturation_are_torchvisions(images):
    factors = draw_jitter(5, (0.3, 0.3, 0.3, 0.0), generator())
    expected = torch.stack(
        [
            F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(x, b), c), s)
            for x, (b, c, s, _) in zip(images, factors.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(jitter(images, factors), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("turn", [-0.1, -0.05, 0.05, 0.1])
def test_hue_turns_by_what_is_asked(turn):
    # A rotation about the grey axis is the angle of HSV but for the hexagon's corners.
    colours = 0.35 + 0.3 * torch.rand(200, 3, generator=generator())
    factors = no_jitter(200)
    factors[:, 3] = turn
    turned = jitter(colours.view(200, 3, 1, 1), factors).flatten(1)
    for before, after in zip(colours.tolist(), turned.tolist(), strict=True):
        change = colorsys.rgb_to_hsv(*after)[0] - colorsys.rgb_to_hsv(*before)[0]
        assert abs((change - turn + 0.5) % 1 - 0.5) < 0.02
        assert sum(after) == pytest.approx(sum(before), abs=1e-5)


def test_hue_and_saturation_leave_grey_alone_and_a_full_turn_returns(images):
    grey = images[:, :1].expand(-1, 3, -1, -1)
    factors = no_jitter(5)
    factors[:, 2:] = torch.tensor([1.7, 0.3])
    torch.testing.assert_close(jitter(grey, factors), grey)
    factors = no_jitter(5)
    factors[:, 3] = 1.0
    torch.testing.assert_close(jitter(images, factors), images)


def test_a_grey_image_jitters_as_its_rgb_copy(images):
    factors = draw_jitter(5, (0.4, 0.4, 0.4, 0.1), generator())
    grey = images[:, :1]
    expected = jitter(grey.expand(-1, 3, -1, -1), factors)
    torch.testing.assert_close(jitter(grey, factors).expand(-1, 3, -1, -1), expected)


def test_crops_are_torchvisions(images):
    draw = View(STRONG["simsiam"], 32).draw(5, (60, 80), generator())
    for x, view, box, flip in zip(
        images, crop_and_flip(images, draw.crop, draw.flip, 32), draw.crop, draw.flip, strict=True
    ):
        expected = F.resized_crop(x, *box.tolist(), [32, 32], antialias=True)
        expected = F.horizontal_flip(expected) if flip else expected
        torch.testing.assert_close(view, expected)
    assert draw.flip.any() and not draw.flip.all()


def test_blur_is_torchvisions(images):
    sigma = torch.tensor([0.2, 0.5, 1.0, 1.5, 2.0])
    for x, blurred, s in zip(images, gaussian_blur(images, sigma), sigma.tolist(), strict=True):
        expected = F.gaussian_blur(x, [13, 13], [s, s])
        torch.testing.assert_close(blurred, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", STRONG)
def test_draws_fill_their_ranges(method):
    recipe = STRONG[method]
    draw = StrongView(method, 224).draw(5000, (256, 256), generator())
    area = (draw.crop[:, 2] * draw.crop[:, 3]) / 256**2
    assert recipe.area[0] * 0.95 < area.min() < recipe.area[0] * 1.2 and area.max() > 0.95
    assert abs(draw.flip.double().mean() - recipe.flip_p) < 0.03
    assert abs(draw.grey.double().mean() - recipe.grey_p) < 0.03
    assert abs((draw.blur > 0).double().mean() - recipe.blur_p) < 0.03
    changed = (draw.jitter != no_jitter(5000)).any(1).double().mean()
    assert abs(changed - recipe.jitter_p) < 0.03
    assert (draw.crop[:, :2] + draw.crop[:, 2:] <= 256).all() and (draw.crop[:, :2] >= 0).all()


def test_weak_views_change_little_and_no_two_alike(images):
    assert WEAK.jitter == (0.1, 0.1, 0.1, 0.05) and WEAK.area == (0.9, 1.0)
    draw = WeakView(224).draw(2000, (300, 300), generator())
    assert ((draw.crop[:, 2] * draw.crop[:, 3]) / 300**2 > 0.89).all()
    assert draw.crop[:, 2].equal(draw.crop[:, 3])


def test_triplet(images):
    weak, blend = WeakView(48), SmoothBlend()
    kept = images.clone()
    anchor, positive, negative = spd_triplet(images, weak, blend, generator())
    assert torch.equal(images, kept)
    assert anchor.shape == positive.shape == negative.shape == (5, 3, 48, 48)
    assert torch.equal(anchor, plain_view(images, 48))
    # The same randomness, step by step: W, then W', then the blend of W'.
    again = generator()
    assert torch.equal(positive, weak(images, again))
    assert torch.equal(negative, blend(weak(images, again), generator=again))
    assert not torch.equal(positive, negative)


def test_unknown_methods_are_named():
    with pytest.raises(ValueError, match="'byol' is not one of simsiam"):
        StrongView("byol", 32)
