"""Attention maps against the grad-cam package's own, closed forms and other libraries."""

import gc

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_grad_cam.utils.image import scale_cam_image
from scipy.ndimage import gaussian_filter, zoom
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F

from spdlib import attention
from spdlib.attention import (
    METHODS,
    Attention,
    CosineDistance,
    NormalBank,
    attention_maps,
    baseline_maps,
    embed,
    localisation,
    masks_on_grid,
    normalise,
    perturbation,
    summarise,
)
from spdlib.datasets import elpv, loader
from spdlib.encoders import load_encoder


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def images():
    defective = elpv("poly").query("label == 1").head(2)
    return next(iter(loader(defective, size=96)))["image"][:, :, :64]


@pytest.fixture(scope="module")
def lite0():
    return load_encoder("efficientnet_lite0", "imagenet")


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return load_encoder("resnet18")


def far_bank(encoder):
    # Far from the images' features, so that rounding is not magnified by tiny distances.
    return NormalBank(random(5, encoder.feature_dim, seed=1))


def real_bank(encoder):
    normal = elpv("poly").query("split == 'train'").head(8)
    return NormalBank.build(encoder, loader(normal, size=96))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["lite0", "resnet"])
def test_maps_are_those_of_the_package_on_the_whole_network(name, stage, method, images, request):
    encoder = request.getfixturevalue(name)
    bank = real_bank(encoder)
    targets = [CosineDistance(f) for f in bank.nearest(embed(encoder, images)).feature]
    theirs = METHODS[method](encoder, [encoder.stage_module(stage)])(images, targets)
    ours = normalise(attention_maps(encoder, images, bank, stage, method).maps)
    assert ours.amax() == 1
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_last_stage_of_a_resnet_has_a_closed_form(method, resnet):
    # Behind it there is only the mean over the P cells, so with g the gradient of the distance
    # 1 - f.r / |f| (r of length 1), which is (cos f/|f| - r) / |f|, the map is A.g / P. And as
    # the distance does not change with the length of f, f.g = 0: energy sums to 0.
    image = random(1, 3, 64, 64)
    bank = far_bank(resnet)
    result = attention_maps(resnet, image, bank, method=method, rectify=False)
    with torch.no_grad():
        grid = resnet.stages(image, 4)[-1][0]
    f, r = grid.mean((1, 2)), result.nearest.feature[0]
    g = ((f @ r) / f.norm() ** 2 * f - r) / f.norm()
    expected = torch.einsum("chw,c->hw", grid, g) / grid[0].numel()
    upsampled = F.interpolate(expected[None, None], (64, 64), mode="bilinear")[0]
    torch.testing.assert_close(result.maps, upsampled, atol=1e-7, rtol=1e-4)
    assert abs(expected.sum()) < 1e-3 * expected.abs().sum()
    torch.testing.assert_close(result.nearest.distance[0], 1 - (f @ r) / f.norm())


def test_nearest_is_scikit_learns():
    known, asked = random(300, 40) - 0.5, random(50, 40, seed=1) - 0.5
    found = NormalBank(known).nearest(asked)
    peer = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(known.numpy())
    distance, index = peer.kneighbors(asked.numpy())
    assert found.index.tolist() == index[:, 0].tolist()
    np.testing.assert_allclose(found.distance, distance[:, 0], atol=1e-6)


def test_the_nearest_image_is_called_by_its_row(lite0):
    normals = elpv("poly").query("split == 'train'").head(5)
    batches = list(loader(normals, size=64, batch_size=2))
    bank = NormalBank.build(lite0, reversed(batches))  # as a shuffling loader would
    again = bank.nearest(embed(lite0, batches[1]["image"]))
    assert again.index.tolist() == [2, 3]
    assert again.distance.max() < attention.SAME_IMAGE


def test_the_encoder_is_left_as_found(images, resnet):
    encoder, bank = load_encoder("resnet18"), far_bank(resnet)
    encoder.train()
    encoder.network.layer1.eval()
    encoder.network.layer2.requires_grad_(False)
    encoder(images).sum().backward()
    encoder.network.layer3.register_forward_hook(lambda *_: None)

    def state():
        return (
            [
                (m.training, len(m._forward_hooks), len(m._backward_hooks))
                for m in encoder.modules()
            ],
            [(p.requires_grad, id(p.grad), p.dtype) for p in encoder.parameters()],
            [t.clone() for t in (*encoder.buffers(), *encoder.parameters())],
        )

    before = state()
    for method in METHODS:
        attention_maps(encoder, images, bank, 3, method)
    with pytest.raises(IndexError):
        attention_maps(encoder, images, FailingBank(bank), 3)
    after = state()
    assert before[:2] == after[:2]
    assert all(map(torch.equal, before[2], after[2]))


class FailingBank:
    """A bank whose features cannot be used as targets, to fail while hooks are set."""

    def __init__(self, bank):
        self.bank = bank

    def nearest(self, features):
        found = self.bank.nearest(features)
        return attention.Nearest(found.distance, found.index, Unusable())


class Unusable:
    def __iter__(self):
        raise IndexError("no such feature")


def test_nothing_leaks(images, resnet):
    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    bank = far_bank(resnet)
    attention_maps(resnet, images, bank)
    before = tensors()
    for _ in range(3):
        attention_maps(resnet, images, bank)
    assert tensors() == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype, images, resnet):
    bank = far_bank(resnet)
    expected = normalise(attention_maps(resnet, images, bank).maps)
    other = load_encoder("resnet18").to(dtype)
    other.load_state_dict(resnet.state_dict())
    maps = normalise(attention_maps(other, images, bank).maps)
    assert maps.dtype == torch.float32 and next(other.parameters()).dtype == dtype
    torch.testing.assert_close(
        maps, expected, rtol=0, atol=1e-4 if dtype == torch.float64 else 0.05
    )


def test_maps_are_made_inside_no_grad_too(images, resnet):
    bank = far_bank(resnet)
    expected = attention_maps(resnet, images, bank).maps
    with torch.no_grad():
        assert torch.equal(attention_maps(resnet, images, bank).maps, expected)


def test_errors_name_what_is_wrong(images, lite0, resnet):
    bank = far_bank(lite0)
    with pytest.raises(ValueError, match="bank: there are no normal images"):
        NormalBank.build(lite0, [])
    with pytest.raises(ValueError, match="images: there are none; maps need one or more"):
        attention_maps(lite0, images[:0], bank)
    with pytest.raises(ValueError, match="bank: sample 1 is an anomaly"):
        cells = pd.concat([elpv("poly").query(f"label == {label}").head(1) for label in (0, 1)])
        NormalBank.build(lite0, loader(cells, size=32))
    with pytest.raises(ValueError, match=r"images: number 1 is in the bank .* image 7 is 0"):
        known = NormalBank(embed(lite0, images[1:]), torch.tensor([7]))
        attention_maps(lite0, images, known)
    with pytest.raises(ValueError, match="stage: efficientnet_lite0 has stages 1 to 4, not 5"):
        attention_maps(lite0, images, bank, stage=5)
    with pytest.raises(ValueError, match="method: 'scorecam' is not among gradcam, hirescam"):
        attention_maps(lite0, images, bank, method="scorecam")
    with pytest.raises(ValueError, match="of length 512, those in the bank of 1280"):
        attention_maps(resnet, images, bank)
    with pytest.raises(ValueError, match="features: the feature of image 1 is zero"):
        bank.nearest(torch.cat([torch.ones(1, 1280), torch.zeros(1, 1280)]))
    with pytest.raises(ValueError, match="bank: the feature of image 0 is not finite"):
        NormalBank(torch.full((1, 4), torch.nan))
    with pytest.raises(ValueError, match="masks: number 0 is empty"):
        localisation(torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="maps: number 0 has negative energy"):
        localisation(-torch.ones(1, 2, 2), torch.eye(2, dtype=torch.bool)[None])


def test_normalised_as_the_package_does():
    maps = random(3, 8, 8) * 1e-4
    np.testing.assert_allclose(
        normalise(maps), scale_cam_image(scale_cam_image(maps.numpy())), atol=1e-5
    )


def test_localisation_by_hand_and_by_scikit_learn():
    maps = (random(4, 12, 12) * 8).round() / 8  # with ties, also at the top
    masks = random(4, 12, 12, seed=1) > 0.8
    table = localisation(maps, masks)
    for row, energy, mask in zip(table.itertuples(), maps.numpy(), masks.numpy(), strict=True):
        assert row.energy_share == pytest.approx((energy * mask).sum() / energy.sum())
        peaks = np.argwhere(energy == energy.max())
        assert row.pointing == pytest.approx(np.mean([mask[y, x] for y, x in peaks]))
        expected = average_precision_score(mask.ravel(), energy.ravel())
        assert row.average_precision == pytest.approx(expected)
    scaled = localisation(1e-6 * maps, masks)
    pd.testing.assert_frame_equal(scaled, table)


def test_baselines_know_nothing():
    maps = baseline_maps(40, 60)
    masks = random(1, 40, 60) > 0.9
    uniform = localisation(maps["uniform"][None], masks).iloc[0]
    assert uniform.area == pytest.approx(uniform.energy_share)
    assert uniform.area == pytest.approx(uniform.pointing)
    assert uniform.area == pytest.approx(uniform.average_precision)
    centre = maps["centre"]
    torch.testing.assert_close(centre, centre.flip(0, 1))
    assert centre[19, 44] / centre[19, 29] == pytest.approx(np.exp(-0.5), rel=0.05)  # one sigma


def test_masks_on_a_grid_are_pooled_and_enlarged_as_maps_are():
    masks = random(3, 12, 8) > 0.7
    blocks = masks.numpy().reshape(3, 4, 3, 4, 2).mean((2, 4))
    # Bilinear, half-pixel centres, edges repeated: scipy's zoom on a grid with cell-sized pixels.
    expected = zoom(blocks, (1, 3, 2), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(masks_on_grid(masks, (4, 4)), expected, atol=1e-6)
    torch.testing.assert_close(masks_on_grid(masks, (12, 8)), masks.float())


def test_perturbation_tells_a_map_of_the_defect_from_one_of_elsewhere(lite0):
    cells = elpv("poly").query("split == 'test' and label == 0").head(6)
    (normal,) = (batch["image"] for batch in loader(cells, size=128))
    crack = torch.zeros(6, 128, 128)
    crack[:, 50:53, 30:100] = 1
    images = normal * (1 - 0.8 * crack[:, None])
    nearest = NormalBank(embed(lite0, normal)).nearest(embed(lite0, images))
    near = torch.from_numpy(gaussian_filter(crack, (0, 3, 3)))
    true = perturbation(lite0, images, Attention(near, nearest)).mean()
    false = perturbation(lite0, images, Attention(near.roll(-40, 1), nearest)).mean()
    assert true.hottest > 0.2 and true.hottest > true.random + 0.2
    assert false.hottest < 0.05


def test_summary_has_a_row_a_group_and_measure():
    table = pd.DataFrame({"map": ["a", "a", "b"], "energy_share": [0.0, 1.0, 0.25]})
    summary = summarise(table, "map").set_index("map")
    assert summary["mean"].to_dict() == {"a": 0.5, "b": 0.25}
    assert summary.loc["a", ["low", "high"]].tolist() == [0, 1]
    assert summary.images.to_dict() == {"a": 2, "b": 1}
