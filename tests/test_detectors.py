"""Detectors beside PaDiM, against scikit-learn and loops that follow the papers' steps."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from spdlib import evaluation, features
from spdlib.detectors import DETECTORS, Detector
from spdlib.encoders import load_encoder
from spdlib.metrics import auroc
from spdlib.patchcore import PatchCore, coreset
from spdlib.pooled import Pooled, mahalanobis, neighbours

SIZE = 64


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("efficientnet_lite0", "imagenet")


@pytest.fixture(scope="module")
def table():
    return evaluation.samples("elpv", ["mono"], train_images=10, test_images=6)


@pytest.fixture(scope="module")
def cells():
    return torch.rand(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def test_distances_of_pooled_features_are_scikit_learns():
    rng = np.random.default_rng(0)
    normal, other = (torch.from_numpy(rng.normal(size=(n, 30)) + 1) for n in (20, 7))
    nearest = NearestNeighbors(n_neighbors=5, metric="cosine").fit(normal)
    expected = nearest.kneighbors(other)[0].mean(1)
    np.testing.assert_allclose(neighbours(normal)(other), expected)
    # Fewer images than channels: only the shrunk covariance has an inverse.
    expected = np.sqrt(LedoitWolf().fit(normal).mahalanobis(other))
    np.testing.assert_allclose(mahalanobis(normal)(other), expected)
    two, alike = normal[:2], torch.ones(4, 30)
    # Along the line through two images, the distance is in units of their standard deviation.
    away = mahalanobis(two)(two.mean(0) + torch.tensor([[0.5], [1.0]]) * (two[0] - two[1]))
    assert away[1] == pytest.approx(2 * float(away[0])) and away[0] == pytest.approx(1, rel=0.02)
    assert mahalanobis(alike)(alike).tolist() == [0] * 4
    assert mahalanobis(alike)(other).isfinite().all()
    with pytest.raises(ValueError, match="two images or more, not 1"):
        mahalanobis(normal[:1])


@torch.no_grad()
def test_images_and_their_pooled_features_are_scored_alike(encoder, cells, monkeypatch):
    monkeypatch.setattr(features, "FORWARD_PIXELS", 3 * SIZE**2)  # three images at a time
    encoder.train()
    model = Pooled(encoder).fit(cells[:10].split(4))
    none, scores = model.score(cells[10:].split(4))
    assert none is None and encoder.training
    encoder.eval()
    known, new = encoder(cells[:10]), encoder(cells[10:])
    torch.testing.assert_close(model.fit([known]).score([new])[1], scores, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="call fit first"):
        Pooled(encoder).score([new])
    with pytest.raises(ValueError, match="there are none"):
        Pooled(encoder).fit([])


def greedy(points, count, first):
    kept = [first]
    while len(kept) < count:
        gaps = [min(np.linalg.norm(point - points[k]) for k in kept) for point in points]
        kept.append(int(np.argmax(gaps)))
    return kept


def test_the_coreset_is_the_greedy_one():
    points = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    kept = coreset(points, 0.2, seed=3).tolist()
    assert kept == greedy(points.double().numpy(), 12, kept[0])
    alike = coreset(torch.ones(9, 200), 1.0)  # projected, and without any distance
    assert sorted(alike.tolist()) == list(range(9))


@torch.no_grad()
def patchcore_by_steps(encoder, bank, images):
    """Maps and scores by the paper's steps, patch by patch."""

    def patches(images):
        _, near, far = (F.avg_pool2d(stage, 3, 1, 1) for stage in encoder.stages(images, 3))
        far = F.interpolate(far, near.shape[-2:], mode="bilinear")
        return torch.cat([near, far], 1).double()

    maps, scores = [], []
    for image in patches(images):
        distances, best = np.zeros(image.shape[1:]), (0.0, None, None)
        for y, x in np.ndindex(distances.shape):
            away = (bank - image[:, y, x]).norm(dim=1)
            distances[y, x] = away.min()
            if away.min() > best[0]:
                best = float(away.min()), away.argmin(), image[:, y, x]
        score, number, patch = best
        around = (bank - bank[number]).norm(dim=1).argsort()[:9]
        total = (bank[around] - patch).norm(dim=1).exp().sum()
        scores.append((1 - np.exp(score) / total) * score)
        large = F.interpolate(torch.tensor(distances)[None, None], SIZE, mode="bilinear")[0, 0]
        maps.append(gaussian_filter(large.numpy(), 4.0, mode="reflect"))
    return np.stack(maps), np.stack(scores)


def test_patchcore_is_that_of_the_papers_steps(encoder, cells):
    model = PatchCore(encoder, share=0.05, seed=1).fit(cells[:8].split(3))
    assert len(model.bank) == round(0.05 * 8 * 8 * 8)
    maps, scores = model.score(cells[8:12].split(3))
    expected = patchcore_by_steps(encoder, model.bank.double(), cells[8:12])
    np.testing.assert_allclose(maps, expected[0], rtol=1e-3)
    np.testing.assert_allclose(scores, expected[1], rtol=1e-3)
    with pytest.raises(ValueError, match=r"images of \(32, 32\), fitted \(64, 64\)"):
        model.score([cells[:2, :, :32, :32]])


def test_all_detectors_are_evaluated_as_one_by_one(table, encoder):
    encoders = {"imagenet": encoder}
    found = evaluation.evaluate_all(table, encoders, list(DETECTORS), SIZE, n_features=10)
    for key, one in found.items():
        alone = evaluation.evaluate(table, encoders, SIZE, n_features=10, detector=key)
        np.testing.assert_allclose(one.scores["imagenet"], alone.scores["imagenet"], rtol=1e-3)
        rows = evaluation.measure(one, "elpv", encoder.name, repeats=10)
        assert set(rows.downstream_model) == {DETECTORS[key].name}
        assert ("segmentation" in set(rows.task)) != DETECTORS[key].pooled
        assert len(one.held_out["mono"]["imagenet"]) == 10
    assert torch.equal(found["padim"].masks, found["neighbours"].masks)
    with pytest.raises(ValueError, match="unknown detector 'padm'; known: padim, patchcore"):
        evaluation.evaluate(table, encoders, SIZE, detector="padm")
    with pytest.raises(ValueError, match="accelerator: 'tpu' is not here"):
        evaluation.evaluate(table, encoders, SIZE, device="tpu")


def test_features_are_right_beside_a_detector_with_passes_of_its_own(table, encoder, monkeypatch):
    class Twice(PatchCore):
        def _patches(self, batches):
            for batch in batches:
                list(features.stage_maps(self.encoder, batch, 2))
                yield from super()._patches([batch])

    record = Detector("twice", lambda encoder, *_: Twice(encoder))
    monkeypatch.setitem(DETECTORS, "twice", record)
    encoders = {"imagenet": encoder}
    both = evaluation.evaluate_all(table, encoders, ["neighbours", "twice"], SIZE)
    alone = evaluation.evaluate(table, encoders, SIZE, detector="neighbours")
    found = both["neighbours"].scores["imagenet"]
    np.testing.assert_allclose(found, alone.scores["imagenet"], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["patchcore", "neighbours", "mahalanobis"])
def test_finds_defective_cells(detector, encoder):
    table = evaluation.samples("elpv", ["mono"], train_images=60, test_images=60)
    found = evaluation.evaluate(table, {"imagenet": encoder}, 128, detector=detector)
    assert auroc(found.truth("mono", "detection"), found.scores["imagenet"][
        found.rows("mono", "detection")]) > 0.8  # fmt: skip
