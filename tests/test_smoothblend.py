"""SmoothBlend against a dense Gaussian convolution, scipy, and its documented ranges."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from spdlib.smoothblend import SIGMA_AT_224, CutPaste, Draw, RimAlone, SmoothBlend


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(6, 3, 96, 128, generator=generator(9))


@pytest.mark.parametrize("sigma", [0.7, 3.0, 8.0])
def test_alpha_is_the_box_mask_under_a_dense_gaussian(sigma):
    # scipy's truncated Gaussian with zeros outside the image; 200 draws put boxes on borders.
    blend = SmoothBlend(sigma=sigma)
    draw = blend.draw(200, (60, 90), generator())
    left, top, right, bottom = draw.target_boxes.T
    assert (left == 0).any() and (top == 0).any() and (right == 90).any() and (bottom == 60).any()
    for i, alpha in enumerate(blend.alpha(draw)[:, 0].numpy()):
        mask = np.zeros((60, 90))
        mask[top[i] : bottom[i], left[i] : right[i]] = 1
        dense = gaussian_filter(mask, sigma, mode="constant", truncate=4.0)
        assert np.abs(alpha - dense).max() < 1e-4


def test_blend_is_the_papers_formula(images):
    blend = SmoothBlend(jitter=(0, 0, 0, 0))
    draw = blend.draw(6, (96, 128), generator())
    u = torch.zeros_like(images)
    for i, (source, target) in enumerate(zip(draw.source_boxes, draw.target_boxes, strict=True)):
        (a, b, c, d), (e, f, g, h) = source.tolist(), target.tolist()
        u[i, :, f:h, e:g] = images[i, :, b:d, a:c]
    alpha = blend.alpha(draw)
    torch.testing.assert_close(blend.foreground(images, draw), u)
    torch.testing.assert_close(blend.blend(images, draw), (1 - alpha) * images + alpha * u)


@pytest.mark.parametrize("sigma", [0.4, 2.5])
def test_alpha_of_extreme_boxes_is_a_dense_2d_convolution(sigma):
    # One pixel, one row, one column, the whole image, each in the corners it fits.
    size = height, width = 12, 19
    extents = [(1, 1), (1, 19), (12, 1), (12, 19), (1, 7), (5, 1)]
    boxes = [(y, x, h, w) for h, w in extents
             for y in {0, height - h} for x in {0, width - w}]  # fmt: skip
    top, left, h, w = torch.tensor(boxes).T
    corner, none = torch.stack([top, left], 1), torch.zeros(len(boxes), 4)
    draw = Draw(size, h, w, corner, corner, none, torch.ones(len(boxes), dtype=torch.bool))
    masks = torch.zeros(len(boxes), 1, *size, dtype=torch.float64)
    for mask, (y, x, h, w) in zip(masks, boxes, strict=True):
        mask[0, y : y + h, x : x + w] = 1
    tap = torch.arange(-15, 16, dtype=torch.float64)  # six sigma and more
    kernel = torch.exp(-(tap[:, None] ** 2 + tap**2) / (2 * sigma**2))
    dense = torch.nn.functional.conv2d(masks, (kernel / kernel.sum())[None, None], padding=15)
    alpha = SmoothBlend(sigma=sigma).alpha(draw)
    torch.testing.assert_close(alpha.double(), dense, rtol=0, atol=1e-4)


SHAPES = [(4, 3, 64, 64), (4, 1, 64, 64), (4, 3, 40, 96), (4, 3, 9, 7), (4, 1, 1, 50)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"sigma": 0}, {"area": (0.004, 0.004), "aspect": (20, 20)}, {"area": (0.9, 1.0)}],
    ids=["default", "hard", "one pixel high", "nearly the image"],
)
def test_blend_is_the_papers_formula_with_torchvisions_jitter(shape, settings):
    images = 0.35 + 0.3 * torch.rand(shape, generator=generator(1))  # so that nothing clips
    blend = SmoothBlend(**settings)
    draw = blend.draw(4, shape[-2:], generator())
    changed, alpha = blend.blend(images, draw), blend.alpha(draw)
    for i, (source, target) in enumerate(zip(draw.source_boxes, draw.target_boxes, strict=True)):
        (a, b, c, d), (e, f, g, h) = source.tolist(), target.tolist()
        brightness, contrast, saturation, hue = draw.jitter[i].tolist()
        patch = F.adjust_brightness(images[i, :, b:d, a:c], brightness)
        patch = F.adjust_contrast(patch, contrast)
        patch = F.adjust_hue(F.adjust_saturation(patch, saturation), hue)
        u = torch.zeros_like(images[i])
        u[:, f:h, e:g] = patch
        expected = (1 - alpha[i]) * images[i] + alpha[i] * u
        # torchvision's grey has rounded weights, 0.2989 for 0.299.
        torch.testing.assert_close(changed[i], expected, rtol=0, atol=2e-3)


def test_jitter_touches_the_patch_only(images):
    draw = SmoothBlend().draw(6, (96, 128), generator())
    jittered = SmoothBlend().foreground(images, draw)
    plain = SmoothBlend().foreground(
        images, SmoothBlend(jitter=(0,) * 4).draw(6, (96, 128), generator())
    )
    inside = plain > 0
    assert (jittered[inside] != plain[inside]).float().mean() > 0.9
    assert not jittered[~inside].any()


def test_pixels_outside_alphas_support_are_the_inputs(images):
    for blend in (SmoothBlend(), SmoothBlend(sigma=2.0), CutPaste()):
        draw = blend.draw(6, (96, 128), generator(3))
        changed = blend.blend(images, draw)
        outside = (blend.alpha(draw) == 0).expand_as(images)
        assert outside.any() and torch.equal(changed[outside], images[outside])
        assert not torch.equal(changed, images)


@pytest.mark.parametrize("blend", [SmoothBlend(), CutPaste()])
def test_ten_thousand_draws_fill_their_ranges(blend):
    size = (224, 224)
    draw = blend.draw(10_000, size, generator())
    h, w = draw.height.double(), draw.width.double()
    # Sides are rounded: up to half a pixel either way.
    assert ((h - 0.5) * (w - 0.5) < blend.area[1] * 224**2).all()
    assert ((h + 0.5) * (w + 0.5) > blend.area[0] * 224**2).all()
    assert ((w - 0.5) / (h + 0.5) < blend.aspect[1]).all()
    assert ((w + 0.5) / (h - 0.5) > blend.aspect[0]).all()
    # Uniform area, log-uniform aspect: each tenth of the range holds a tenth of the draws.
    area = (h * w / 224**2 - blend.area[0]) / (blend.area[1] - blend.area[0])
    low, high = np.log(blend.aspect)
    aspect = (torch.log(w / h) - low) / (high - low)
    for values in (area, aspect):
        shares = torch.histc(values.clamp(0, 1 - 1e-9), 10, 0, 1) / len(values)
        assert (shares - 0.1).abs().max() < 0.025
    # Patches lie inside, reach both borders from either side, and are as often in each tenth.
    for boxes in (draw.source_boxes, draw.target_boxes):
        assert boxes[:, :2].min() == 0 and boxes[:, 2:].max() == 224
        for start, extent in ((boxes[:, 0], w), (boxes[:, 1], h)):
            shares = torch.histc(start / (225 - extent), 10, 0, 1) / len(start)
            assert (shares - 0.1).abs().max() < 0.02
    # Area, aspect, the four coordinates and the jitter are drawn independently.
    places = torch.cat([draw.source, draw.target], 1) / (225 - torch.stack([h, w, h, w], 1))
    drawn = torch.cat([area[:, None], aspect[:, None], places, draw.jitter], 1)
    assert (drawn.T.corrcoef() - torch.eye(10)).abs().max() < 0.05
    for strength, factors in zip(blend.jitter, draw.jitter.T - torch.tensor([1, 1, 1, 0])[:, None],
                                 strict=True):  # fmt: skip
        shares = torch.histc(factors, 10, -strength, strength) / len(factors)
        assert (shares - 0.1).abs().max() < 0.02


def test_sigma_follows_the_image_unless_given():
    assert SmoothBlend().sigma_for((224, 224)) == SIGMA_AT_224
    assert SmoothBlend().sigma_for((112, 112)) == SIGMA_AT_224 / 2
    assert SmoothBlend(sigma=5).sigma_for((112, 112)) == 5


def test_cutpaste_is_sigma_zero(images):
    cut = CutPaste()
    same = SmoothBlend(cut.area, cut.aspect, sigma=0, jitter=cut.jitter)
    draw = cut.draw(6, (96, 128), generator())
    assert torch.equal(cut.blend(images, draw), same.blend(images, draw))
    assert set(cut.alpha(draw).unique().tolist()) == {0.0, 1.0}


def test_p_zero_changes_nothing(images):
    for x in (images, (images * 255).byte(), images[0]):
        assert torch.equal(SmoothBlend(p=0)(x, generator=generator()), x)
    assert not SmoothBlend(p=0).alpha(SmoothBlend(p=0).draw(6, (96, 128), generator())).any()
    half = SmoothBlend(p=0.5).draw(2000, (32, 32), generator()).blended
    assert abs(half.double().mean() - 0.5) < 0.04


@pytest.mark.parametrize("blend", [SmoothBlend(), CutPaste()])
@pytest.mark.parametrize("channels", [1, 3])
def test_uint8_and_float_agree(images, blend, channels):
    whole = (images[:, :channels] * 255).round().byte()
    draw = blend.draw(6, (96, 128), generator())
    expected = blend.blend(whole / 255, draw) * 255
    changed = blend.blend(whole, draw)
    assert changed.dtype == torch.uint8
    assert (changed - expected).abs().max() < 0.51


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floats(images, dtype):
    given = images.to(dtype)
    draw = SmoothBlend().draw(6, (96, 128), generator())
    changed, expected = (SmoothBlend().blend(x, draw) for x in (given, given.float()))
    assert changed.dtype == dtype
    assert (changed.float() - expected).abs().max() <= max(torch.finfo(dtype).eps / 2, 1e-6)


def test_no_images_at_all():
    for whole in (torch.zeros(0, 3, 8, 8), torch.zeros(0, 3, 8, 8, dtype=torch.uint8)):
        assert SmoothBlend()(whole, generator=generator()).shape == (0, 3, 8, 8)


def test_the_same_seed_draws_the_same(images):
    first = SmoothBlend()(images, generator=generator(5))
    assert torch.equal(first, SmoothBlend()(images, generator=generator(5)))
    assert not torch.equal(first, SmoothBlend()(images, generator=generator(6)))


def test_a_draw_is_kept_and_repeated(images, tmp_path):
    blend = SmoothBlend(p=0.5)
    draw = blend.draw(6, (96, 128), generator())
    torch.save(vars(draw), tmp_path / "draw.pt")
    again = Draw(**torch.load(tmp_path / "draw.pt", weights_only=True))
    assert torch.equal(blend.blend(images, again), blend(images, generator=generator()))


def test_draws_of_some_images(images):
    blend = SmoothBlend(p=0.5)
    draw = blend.draw(6, (96, 128), generator())
    some = [4, 1]
    assert len(draw[some]) == 2 and len(draw[2:]) == 4
    expected = blend.blend(images, draw)[some]
    torch.testing.assert_close(blend.blend(images[some], draw[some]), expected)


def test_other_settings_about_the_same_places():
    size = (64, 100)
    places = SmoothBlend().draw(500, size, generator())
    assert vars(places).keys() == vars(places.centred_on(places)).keys()
    for settings in ({"area": (0.1, 0.1)}, {"aspect": (5, 5)}, {"area": (1.0, 1.0)}):
        moved = SmoothBlend(**settings).draw(500, size, generator()).centred_on(places)
        for boxes, others in ((moved.source_boxes, places.source_boxes),
                              (moved.target_boxes, places.target_boxes)):  # fmt: skip
            assert (boxes[:, :2] >= 0).all()
            assert (boxes[:, 2:] <= torch.tensor([100, 64])).all()
            free = ((boxes[:, :2] > 0) & (boxes[:, 2:] < torch.tensor([100, 64]))).all(1)
            centres, before = ((b[:, :2] + b[:, 2:]) / 2 for b in (boxes, others))
            assert (centres - before)[free].abs().sum() <= 1.0 * free.sum()
            assert settings.get("area") == (1.0, 1.0) or free.sum() > 100


def test_foregrounds_are_what_they_are_called(images):
    plain, reach = {"jitter": (0, 0, 0, 0), "sigma": 3.0}, 12
    draw = SmoothBlend(**plain).draw(200, (96, 128), generator(4))
    batch = images[torch.arange(200) % 6]
    alpha = SmoothBlend(**plain).alpha(draw)
    for kind in ("zero", "mean", "image", "context"):
        u = {
            "zero": torch.zeros_like(batch),
            "mean": batch.mean((2, 3), keepdim=True).expand_as(batch).clone(),
            "image": batch.clone(),
            "context": torch.zeros_like(batch),
        }[kind]
        boxes = zip(draw.source_boxes.tolist(), draw.target_boxes.tolist(), strict=True)
        for i, ((a, b, c, d), (e, f, _, _)) in enumerate(boxes):
            more = reach if kind == "context" else 0
            for y, x in np.ndindex(d - b + 2 * more, c - a + 2 * more):
                row, column = f + y - more, e + x - more
                if 0 <= row < 96 and 0 <= column < 128:  # beyond the image its border goes on
                    source = min(max(b + y - more, 0), 95), min(max(a + x - more, 0), 127)
                    u[i, :, row, column] = batch[i, :, *source]
        blend = SmoothBlend(**plain, foreground=kind)
        expected = (1 - alpha) * batch + alpha * u
        torch.testing.assert_close(blend.blend(batch, draw), expected)
        torch.testing.assert_close(
            torch.where(alpha > 0, blend.foreground(batch, draw), 0), torch.where(alpha > 0, u, 0)
        )


def test_the_rim_alone_is_smoothblend_outside_the_box_and_nothing_inside(images):
    draws = {kind: kind().draw(6, (96, 128), generator(3)) for kind in (SmoothBlend, RimAlone)}
    assert torch.equal(draws[RimAlone].target_boxes, draws[SmoothBlend].target_boxes)
    whole, rim = (kind().blend(images, draw) for kind, draw in draws.items())
    for i, (left, top, right, bottom) in enumerate(draws[RimAlone].target_boxes.tolist()):
        inside = torch.zeros(96, 128, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        torch.testing.assert_close(rim[i][:, inside], images[i][:, inside])
        torch.testing.assert_close(rim[i][:, ~inside], whole[i][:, ~inside])


@pytest.mark.parametrize(
    "blend",
    [
        SmoothBlend(p=0.7), CutPaste(), SmoothBlend(foreground="mean"),
        SmoothBlend(foreground="image"), SmoothBlend(foreground="context"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_the_accelerators_way_gives_the_same(images, blend, dtype):
    # Whole images at once, as on a GPU, against window by window, as on a CPU.
    images = (images * 255).round().byte() if dtype == torch.uint8 else images
    draw = blend.draw(6, (96, 128), generator(2))
    whole = images.clone()
    blend._blend_whole(whole, images, draw)
    expected = blend.blend(images, draw)
    torch.testing.assert_close(whole, expected, rtol=0, atol=1 if dtype == torch.uint8 else 1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_from_a_cpu_generator(images):
    changed = SmoothBlend()(images.cuda(), generator=generator())
    assert changed.is_cuda
    torch.testing.assert_close(changed.cpu(), SmoothBlend()(images, generator=generator()))


@pytest.mark.parametrize(
    "shape", [(1, 3, 5, 200), (2, 1, 64, 64), (3, 40, 60), (2, 3, 1, 1), (1, 3, 7, 7)]
)
def test_odd_shapes(shape):
    images = torch.rand(shape, generator=generator())
    changed = SmoothBlend()(images, generator=generator())
    assert changed.shape == images.shape and changed.isfinite().all()
    assert changed.min() >= 0 and changed.max() <= 1


def test_patch_is_cut_down_to_a_small_image():
    # Half the area at aspect 1/3 would be taller than the image.
    draw = SmoothBlend(area=(0.5, 0.5), aspect=(0.05, 0.05)).draw(4, (8, 100), generator())
    assert (draw.height == 8).all() and (draw.source[:, 0] == 0).all()


def test_a_one_pixel_high_patch():
    blend = SmoothBlend(area=(0.002, 0.002), aspect=(20, 20))
    draw = blend.draw(4, (64, 64), generator())
    assert (draw.height == 1).all()
    assert blend.blend(torch.rand(4, 3, 64, 64), draw).shape == (4, 3, 64, 64)


def test_as_a_torchvision_transform():
    image = tv_tensors.Image(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.ones(64, 64, dtype=torch.uint8))
    compose = v2.Compose([SmoothBlend(), v2.ToDtype(torch.float32, scale=True)])
    torch.manual_seed(0)
    changed, same_mask, label = compose(image, mask, 7)
    assert isinstance(changed, tv_tensors.Image) and label == 7
    assert torch.equal(same_mask, mask)
    assert not torch.equal(changed, image / 255)
    # A plain tensor that comes first is a label when there is an Image.
    label = torch.tensor(3)
    same_label, changed = SmoothBlend()(label, image)
    assert same_label is label and not torch.equal(changed, image)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"area": (0.5, 0.1)}, "area"), ({"aspect": (0, 1)}, "aspect"), ({"sigma": -1}, "sigma"),
     ({"p": 2}, "p:"), ({"jitter": (0.1, 0.1, 0.1, 0.9)}, "jitter")],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        SmoothBlend(**arguments)


def test_bad_images_are_named():
    with pytest.raises(ValueError, match=r"images: expected a tensor"):
        SmoothBlend()(torch.rand(5), generator=generator())
    with pytest.raises(ValueError, match=r"images: there is no image tensor"):
        SmoothBlend()("a path")
    with pytest.raises(ValueError, match=r"images: torch.int64"):
        SmoothBlend()(torch.zeros(1, 3, 8, 8, dtype=torch.long), generator=generator())
    with pytest.raises(ValueError, match=r"images: 2 channels"):
        SmoothBlend()(torch.rand(1, 2, 8, 8), generator=generator())
    with pytest.raises(ValueError, match=r"images: 2 of .* the draw is for 3"):
        SmoothBlend().blend(torch.rand(2, 3, 8, 8), SmoothBlend().draw(3, (8, 8)))
