"""Views against torchvision's functional operations with the same parameters."""

import pytest
import torch
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2 import functional as F

from spdlib.colour import draw_jitter, jitter, no_jitter
from spdlib.methods import METHODS, StrongView
from spdlib.smoothblend import SmoothBlend
from spdlib.views import (
    WEAK,
    Share,
    WeakView,
    _crop_and_flip_as_product,
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


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.05, 0.2])
def test_hue_is_torchvisions(turn):
    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1) / 255
    factors = no_jitter(1)
    factors[:, 3] = turn
    turned = jitter(photo[None], factors)[0]
    torch.testing.assert_close(turned, F.adjust_hue(photo, turn), rtol=0, atol=1e-5)


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
    draw = StrongView("simsiam", 32).draw(5, (60, 80), generator())
    for x, view, box, flip in zip(
        images, crop_and_flip(images, draw.crop, draw.flip, 32), draw.crop, draw.flip, strict=True
    ):
        expected = F.resized_crop(x, *box.tolist(), [32, 32], antialias=True)
        expected = F.horizontal_flip(expected) if flip else expected
        torch.testing.assert_close(view, expected)
    assert draw.flip.any() and not draw.flip.all()


@pytest.mark.parametrize("size", [24, 64, 100])
def test_the_accelerators_crops_are_the_same(images, size):
    draw = StrongView("simclr", size).draw(5, (60, 80), generator())
    expected = crop_and_flip(images, draw.crop, draw.flip, size)
    product = _crop_and_flip_as_product(images, draw.crop, draw.flip, size)
    torch.testing.assert_close(product, expected, rtol=0, atol=1e-5)


def test_blur_is_torchvisions(images):
    sigma = torch.tensor([0.2, 0.5, 1.0, 1.5, 2.0])
    for x, blurred, s in zip(images, gaussian_blur(images, sigma, 6), sigma.tolist(), strict=True):
        expected = F.gaussian_blur(x, [13, 13], [s, s])
        torch.testing.assert_close(blurred, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_draws_fill_their_ranges(method):
    recipe = METHODS[method].recipe
    draw = StrongView(method, 224).draw(5000, (256, 256), generator())
    area = (draw.crop[:, 2] * draw.crop[:, 3]) / 256**2
    assert recipe.area[0] * 0.95 < area.min() < recipe.area[0] * 1.2 and area.max() > 0.95
    assert abs(draw.flip.double().mean() - recipe.flip_p) < 0.03
    assert abs((draw.jitter[:, 2] == 0).double().mean() - recipe.grey_p) < 0.03
    assert abs((draw.blur > 0).double().mean() - recipe.blur_p) < 0.03
    changed = (draw.jitter[:, 0] != 1).double().mean()
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


def test_shares_of_a_batch_get_the_views_and_masks_of_the_whole(images):
    weak, blend = WeakView(48), SmoothBlend()
    whole = spd_triplet(images[:4], weak, blend, generator(), alpha=True)
    parts = [
        spd_triplet(part, weak, blend, generator(), share=Share(number, 2), alpha=True)
        for number, part in enumerate(images[:4].chunk(2))
    ]
    for expected, *found in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat(found), expected)
    again = generator()
    weak(images[:4], again)
    second = weak(images[:4], again)
    draw = blend.draw(4, (48, 48), again)
    assert torch.equal(whole[2], blend.blend(second, draw))
    assert torch.equal(whole[3], blend.alpha(draw))


def test_mixed_precision_leaves_views_alone(images):
    # Views are made inside training steps; autocast is for the network.
    views = StrongView("simsiam", 48), WeakView(48)
    expected = [view(images, generator()) for view in views]
    triplet = spd_triplet(images, views[1], SmoothBlend(), generator())
    with torch.autocast("cpu", torch.bfloat16):
        for view, plain in zip(views, expected, strict=True):
            assert torch.equal(view(images, generator()), plain)
        again = spd_triplet(images, views[1], SmoothBlend(), generator())
    assert all(torch.equal(a, b) for a, b in zip(triplet, again, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_from_a_cpu_generator(images):
    expected = spd_triplet(images, WeakView(48), SmoothBlend(), generator())
    triplet = spd_triplet(images.cuda(), WeakView(48), SmoothBlend(), generator())
    for view, plain in zip(triplet, expected, strict=True):
        torch.testing.assert_close(view.cpu(), plain, rtol=0, atol=1e-4)


def test_unknown_methods_are_named():
    with pytest.raises(ValueError, match="'byol' is not one of simsiam"):
        StrongView("byol", 32)
