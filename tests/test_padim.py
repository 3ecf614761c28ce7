"""PaDiM against a NumPy float64 oracle, and scipy's filters."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter

from spdlib.datasets import elpv, loader
from spdlib.encoders import load_encoder, save_encoder
from spdlib.metrics import auroc
from spdlib.padim import EPSILON, PaDiM, smoothing_matrix


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("efficientnet_lite0", "imagenet")


@pytest.fixture(scope="module")
def cells():
    table = elpv("poly").groupby(["split", "label"]).head(12)
    return next(iter(loader(table, size=64, batch_size=36)))["image"]


@torch.no_grad()
def oracle(encoder, channels, train, test):
    """Means, covariances and maps by the paper's steps, in float64, an inverse at a time."""

    def embed(images):
        stages = encoder.stages(images)
        grid = stages[0].shape[-2:]
        stack = torch.cat([F.interpolate(s, grid, mode="nearest") for s in stages], 1)
        return stack[:, channels].double().numpy()

    x, t = embed(train), embed(test)
    mean = x.mean(0)
    d, h, w = mean.shape
    maps, covariances = np.zeros((len(t), h, w)), np.zeros((h * w, d, d))
    for i in range(h):
        for j in range(w):
            covariance = np.cov(x[:, :, i, j], rowvar=False) + EPSILON * np.eye(d)
            covariances[i * w + j] = covariance
            inverse = np.linalg.inv(covariance)
            for n, deviation in enumerate(t[:, :, i, j] - mean[:, i, j]):
                maps[n, i, j] = np.sqrt(deviation @ inverse @ deviation)
    upsampled = F.interpolate(torch.tensor(maps)[:, None], train.shape[-2:], mode="bilinear")
    smooth = np.stack([gaussian_filter(m, 4.0, mode="reflect") for m in upsampled[:, 0].numpy()])
    return mean.reshape(d, -1).T, covariances, smooth


@pytest.mark.parametrize(
    ("name", "size", "batch"),
    # 72 pixels: grids of 18, 9 and 5, of which one is no half of the one before.
    [("efficientnet_lite0", 64, 5), ("efficientnet_lite0", 64, 36), ("resnet18", 72, 7)],
)
def test_means_covariances_and_maps_are_the_oracles(name, size, batch, encoder, cells, monkeypatch):
    monkeypatch.setattr("spdlib.features.FORWARD_PIXELS", 3 * size**2)  # three images at a time
    if name != encoder.name:
        torch.manual_seed(0)
        encoder = load_encoder(name)
    cells = F.interpolate(cells, size, mode="bilinear")
    train, test = cells[:24], cells[24:]
    model = PaDiM(encoder, n_features=20, seed=1, memory=1 << 20)
    maps, scores = model.fit(train.split(batch)).score(test.split(batch))
    mean, covariance, expected = oracle(encoder, model.channels, train, test)
    np.testing.assert_allclose(model.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.covariance(), covariance, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(maps, expected, rtol=1e-3)
    np.testing.assert_allclose(scores, expected.max((1, 2)), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_maps_are_those_of_anomalib_with_exported_weights(cells, tmp_path):
    library = pytest.importorskip("anomalib.models.image.padim.torch_model")
    torch.manual_seed(0)
    encoder = load_encoder("resnet18")
    cells = F.interpolate(cells, 128, mode="bilinear")
    model = PaDiM(encoder, n_features=30).fit([cells[:24]])
    peer = library.PadimModel("resnet18", pre_trained=False, n_features=30)
    # timm's ResNets and torchvision's share their names; here the last stage is left out.
    extractor = peer.feature_extractor.feature_extractor
    weights = load_file(save_encoder(encoder, tmp_path / "spd.safetensors"))
    assert not extractor.load_state_dict(weights, strict=False).missing_keys
    peer.idx = model.channels
    images = (cells - encoder.mean) / encoder.std
    peer.train().feature_extractor.eval()
    peer(images[:24])
    peer.fit()
    with torch.no_grad():
        theirs = peer.eval()(images[24:]).anomaly_map[:, 0]
    # Near the edge the maps differ: theirs is mirrored without repeating it.
    inner = (slice(None), slice(24, -24), slice(24, -24))
    ours = model.score([cells[24:]])[0]
    np.testing.assert_allclose(ours[inner], theirs[inner], rtol=1e-3)


def test_digits_are_kept_far_from_zero(encoder):
    # Features around 1000 with a spread of 0.1: sums of squares in float32 would lose it all.
    generator = torch.Generator().manual_seed(0)
    x = 1000 + 0.1 * torch.randn(4, 300, 5, generator=generator)
    model = PaDiM(encoder, n_features=5)
    model.grid = (2, 2)
    for part in x.split(64, 1):
        model._update(F.pad(part, (0, 0, 1, 0)))
    expected = [np.cov(position.double().numpy(), rowvar=False) for position in x]
    np.testing.assert_allclose(model._packed / 299, expected, rtol=2e-3, atol=2e-5)


def test_extending_equals_fitting_all_at_once(encoder, cells):
    train, test = cells[:24], cells[24:]
    whole = PaDiM(encoder, n_features=20).fit([train]).score([test])
    extended = PaDiM(encoder, n_features=20).fit([train[:10]]).extend([train[10:]]).score([test])
    torch.testing.assert_close(whole, extended, rtol=1e-3, atol=1e-3)


def test_stopped_half_way_it_holds_what_it_learned(encoder, cells):
    def batches():
        yield cells[:8]
        yield cells[8:12]
        raise KeyboardInterrupt

    model = PaDiM(encoder, n_features=20, memory=1 << 16)  # an update every few images
    with pytest.raises(KeyboardInterrupt):
        model.fit(batches())
    assert 2 <= model.count <= 12
    same = PaDiM(encoder, n_features=20).fit([cells[: model.count]])
    torch.testing.assert_close(
        model.score([cells[24:]]), same.score([cells[24:]]), rtol=1e-3, atol=1e-3
    )
    model.extend([cells[model.count : 24]])
    whole = PaDiM(encoder, n_features=20).fit([cells[:24]])
    torch.testing.assert_close(
        model.score([cells[24:]]), whole.score([cells[24:]]), rtol=1e-3, atol=1e-3
    )


def test_few_images_are_regularised_and_one_is_refused(encoder, cells):
    maps, _ = PaDiM(encoder).fit([cells[:2]]).score([cells[2:5]])
    assert maps.isfinite().all()
    with pytest.raises(ValueError, match="two images or more, not 1"):
        PaDiM(encoder).fit([cells[:1]])
    with pytest.raises(ValueError, match="two images or more, not 0"):
        PaDiM(encoder).fit([])


def test_a_saved_model_scores_the_same_and_goes_on_learning(encoder, cells, tmp_path):
    model = PaDiM(encoder, n_features=20, seed=4).fit([cells[:12]])
    again = PaDiM.load(model.save(tmp_path / "padim.safetensors"))
    assert torch.equal(model.score([cells[24:]])[0], again.score([cells[24:]])[0])
    model.extend([cells[12:24]])
    again.extend([cells[12:24]])
    assert torch.equal(model.score([cells[24:]])[0], again.score([cells[24:]])[0])

    other = save_encoder(encoder, tmp_path / "encoder.safetensors")
    with pytest.raises(ValueError, match="was not written by PaDiM"):
        PaDiM.load(other)
    with pytest.raises(FileNotFoundError, match=r"no model at .*nowhere"):
        PaDiM.load(tmp_path / "nowhere")


def test_ones_own_weights_come_back_with_the_model(encoder, cells, tmp_path):
    own = load_encoder(encoder.name)  # any other weights
    path = save_encoder(own, tmp_path / "own.safetensors", {"method": "simsiam_spd", "epochs": 3})
    model = PaDiM(load_encoder(encoder.name, path), n_features=20).fit([cells[:12]])
    again = PaDiM.load(model.save(tmp_path / "padim.safetensors"))
    assert again.encoder.provenance["method"] == "simsiam_spd"
    assert again.count == 12 and torch.equal(again.channels, model.channels)
    torch.testing.assert_close(again.covariance(), model.covariance())
    assert torch.equal(again.score([cells[24:]])[1], model.score([cells[24:]])[1])
    assert not torch.allclose(
        model.score([cells[24:]])[1],
        PaDiM(encoder, n_features=20).fit([cells[:12]]).score([cells[24:]])[1],
    )


def test_channels_follow_the_seed(encoder):
    assert torch.equal(PaDiM(encoder, seed=1).channels, PaDiM(encoder, seed=1).channels)
    assert not torch.equal(PaDiM(encoder, seed=1).channels, PaDiM(encoder, seed=2).channels)
    assert len(PaDiM(encoder).channels.unique()) == 100


def test_the_encoder_is_left_as_it_was(encoder, cells):
    encoder.train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    PaDiM(encoder, n_features=5).fit([cells[:4]]).score([cells[4:6]])
    assert encoder.training
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    encoder.eval()


def test_smoothing_is_bilinear_upsampling_and_scipys_gaussian():
    values = torch.rand(14, 20, generator=torch.Generator().manual_seed(0))
    upsampled = F.interpolate(values[None, None], (56, 80), mode="bilinear")[0, 0]
    expected = gaussian_filter(upsampled.double().numpy(), 4.0, mode="reflect")
    ours = smoothing_matrix(14, 56) @ values @ smoothing_matrix(20, 80).T
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_bad_input_is_named(encoder, cells):
    with pytest.raises(ValueError, match="n_features: 500 of efficientnet_lite0's 176 channels"):
        PaDiM(encoder, n_features=500)
    with pytest.raises(ValueError, match="call fit first"):
        PaDiM(encoder).score([cells])
    with pytest.raises(ValueError, match=r"RGB floats in \[0, 1\] are needed, not uint8"):
        PaDiM(encoder).fit([(255 * cells).byte()])
    with pytest.raises(ValueError, match=r"each is \(B, 3, H, W\) .* not \(3, 64, 64\)"):
        PaDiM(encoder).fit([cells[0]])
    with pytest.raises(ValueError, match=r"images of \(32, 32\), fitted \(64, 64\)"):
        PaDiM(encoder).fit([cells[:4]]).score([cells[:2, :, :32, :32]])
    with pytest.raises(ValueError, match=r"images of \(32, 32\), fitted \(64, 64\)"):
        PaDiM(encoder).fit([cells[:4], cells[:2, :, :32, :32]])


def test_too_little_memory_is_said_before_work(encoder, cells, monkeypatch):
    monkeypatch.setattr("spdlib.padim.free_memory", lambda device: 10_000_000)
    # 16 x 16 positions of 100 x 100 floats.
    with pytest.raises(MemoryError, match=r"256 positions and 100 features take 0\.0 GB"):
        PaDiM(encoder).fit([cells[:4]])
    PaDiM(encoder, n_features=50).fit([cells[:4]])


@pytest.mark.slow
def test_finds_defective_cells(encoder):
    table = elpv("mono").groupby(["split", "label"]).head(60)
    model = PaDiM(encoder).fit(loader(table[table.split == "train"], size=128))
    test = table[table.split == "test"]
    assert auroc(test.label, model.score(loader(test, size=128))[1]) > 0.85
