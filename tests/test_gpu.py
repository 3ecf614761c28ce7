"""On a GPU: the same as on the CPU, in every precision, and resumed exactly."""

import copy

import numpy as np
import pytest
import torch

from spdlib.attention import NormalBank, attention_maps
from spdlib.encoders import load_encoder
from spdlib.loop import PRECISIONS
from spdlib.methods import METHODS
from spdlib.padim import PaDiM
from spdlib.pretraining import Pretraining, pretrain, starting_encoder
from spdlib.pretraining.presets import settings
from spdlib.smoothblend import SmoothBlend

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SMALL = {"encoder": "efficientnet_lite0", "weights": "imagenet", "size": 32, "batch_size": 8,
         "epochs": 2}  # fmt: skip


def noise(count=24, side=36, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def exact():
    """Convolutions in float32, as on the CPU."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def trained(method, images, accelerator, precision="32-true", **options):
    changes = {"queue": 8} if method == "moco" else {}
    chosen = settings(method, eta=0.5, **SMALL | changes)
    labels = [number % 2 for number in range(len(images))] if method == "supervised" else None
    encoder = starting_encoder(chosen)
    log = pretrain(
        encoder, images, chosen, noise(4, seed=1), labels, accelerator=accelerator,
        precision=precision, **options,
    )  # fmt: skip
    return encoder, log


@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_the_cpus(method):
    logs = [trained(method, noise(8), kind)[1].iloc[1] for kind in ("cpu", "gpu")]
    for term in ("loss", "baseline", "spd"):
        assert logs[1][term] == pytest.approx(logs[0][term], abs=2e-3), term


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_trains(precision):
    before = starting_encoder(settings("simsiam", **SMALL))
    encoder, log = trained("simsiam", noise(), "gpu", precision)
    assert len(log) == 7 and np.isfinite(log.loss[1:]).all()
    moved = [not torch.equal(a.cpu(), b) for a, b in
             zip(encoder.parameters(), before.parameters(), strict=True)]  # fmt: skip
    assert np.mean(moved) > 0.9
    assert all(torch.isfinite(weight).all() for weight in encoder.parameters())
    reference = trained("simsiam", noise(), "gpu")[1]
    assert log.loss[1] == pytest.approx(reference.loss[1], abs=0.05)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_training_cut_short_is_taken_up(precision, tmp_path, monkeypatch):
    whole = trained("moco", noise(), "gpu", precision)[1]

    before_step = Pretraining.before_step

    def stop(self):
        if self.step == 4:
            raise KeyboardInterrupt
        before_step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Pretraining, "before_step", stop)
        trained("moco", noise(), "gpu", precision, folder=tmp_path, every=2)
    log = trained("moco", noise(), "gpu", precision, folder=tmp_path, every=2)[1]
    assert log.step.tolist() == whole.step.tolist()
    # The views are the same; a GPU adds in no fixed order.
    assert log.loss[1:].to_numpy() == pytest.approx(whole.loss[1:].to_numpy(), abs=0.05)


def test_a_compiled_encoder_gives_the_same_features():
    encoder = load_encoder("efficientnet_lite0", "imagenet").eval().cuda()
    images = noise(4, 64).cuda().float() / 255
    with torch.no_grad():
        expected = encoder(images)
        found = torch.compile(copy.deepcopy(encoder))(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_padim_and_attention_are_the_cpus():
    encoder = load_encoder("efficientnet_lite0", "imagenet").eval()
    known, new = noise(16, 64).float() / 255, noise(4, 64, seed=2).float() / 255
    new = SmoothBlend()(new, generator=torch.Generator().manual_seed(0))
    batch = {"image": known, "index": torch.arange(16), "label": torch.zeros(16)}
    found = {}
    for device in ("cpu", "cuda"):
        encoder.to(device)
        padim = PaDiM(encoder, n_features=20, seed=0).fit([known])
        bank = NormalBank.build(encoder, [batch])
        attended = attention_maps(encoder, new, bank)
        found[device] = [
            x.cpu() for x in (*padim.score([new]), attended.maps, attended.nearest.distance)
        ]
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        assert (ours - theirs).norm() < 5e-3 * theirs.norm()
