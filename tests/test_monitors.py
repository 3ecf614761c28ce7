"""What is watched while training, on features whose spread is known."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from spdlib.pretraining.monitors import COMPONENTS, collapse, spot_the_difference, spread


def test_spread_of_features_that_fill_the_sphere():
    generator = torch.Generator().manual_seed(0)
    seen = spread(torch.randn(20_000, 16, generator=generator))
    assert seen["std"] == pytest.approx(1, abs=0.01)  # each coordinate's is 1 / sqrt(16)
    assert seen["effective_rank"] == pytest.approx(16, abs=0.05)
    assert collapse(**seen) is None


def test_effective_rank_counts_directions():
    # Singular values 1, 1 and nothing else; then 3 and 1: entropy of (3/4, 1/4).
    plane = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert spread(plane)["effective_rank"] == pytest.approx(2)
    plane[:2] *= 3
    shares = torch.tensor([0.75, 0.25])
    expected = torch.exp(-(shares * shares.log()).sum()).item()
    assert spread(plane)["effective_rank"] == pytest.approx(expected)


def test_collapse_is_said_in_words():
    point = torch.ones(50, 8) + 1e-4 * torch.randn(50, 8)
    assert "nearly one point" in collapse(**spread(point))
    line = torch.linspace(-1, 1, 50)[:, None] * torch.ones(1, 8)
    assert "one direction" in collapse(**spread(line))


class Peak(nn.Module):
    """Each pixel is a feature of its own: the smallest change moves it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images.flatten(1)


class Blind(Peak):
    def forward(self, images):
        return super().forward(torch.ones_like(images))


def test_the_score_is_the_auroc_of_distances_and_chance_for_the_blind():
    images = torch.randint(256, (12, 3, 40, 40), generator=torch.Generator().manual_seed(0))
    images = images.byte()
    seen = spot_the_difference(Peak(), images, size=32, seed=3, batch_size=5)
    scores = [*seen["weak"], *seen["blended"]]
    assert seen["auroc"] == pytest.approx(roc_auc_score([0] * 12 + [1] * 12, scores))
    assert seen["features"].shape == (12, 3 * 32 * 32)
    again = spot_the_difference(Peak(), images, size=32, seed=3, batch_size=5)
    assert (again["weak"] == seen["weak"]).all()
    # Through a projection: the score of the network that ends in it.
    blurred = torch.nn.Sequential(Peak(), torch.nn.Linear(3 * 32 * 32, 4)).eval()
    through = spot_the_difference(blurred[0], images, 32, seed=3, projection=blurred[1])
    whole = spot_the_difference(blurred, images, 32, seed=3)
    assert through["projected"] == whole["auroc"]
    assert through["auroc"] == spot_the_difference(blurred[0], images, 32, seed=3)["auroc"]
    # Components are laid into the same weak views, and are not the same.
    found = {
        name: spot_the_difference(Peak(), images, size=32, seed=3, blend=blend)
        for name, blend in COMPONENTS.items()
    }
    assert all((spot["weak"] == found["filled"]["weak"]).all() for spot in found.values())
    assert (found["rim alone"]["blended"] != found["filled"]["blended"]).any()
    blind = spot_the_difference(Blind(), images, size=32)
    assert blind["auroc"] == 0.5 and blind["aupr"] == pytest.approx(0.75)  # (0, 1) to (1, 0.5)
