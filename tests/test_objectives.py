"""Objectives: the SPD loss by hand; baselines against lightly's parts and naive loops."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import (
    MoCoProjectionHead,
    SimCLRProjectionHead,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
)
from torch import nn

from spdlib.encoders import load_encoder
from spdlib.methods import MoCo, SimCLR, SimSiam, Supervised
from spdlib.objectives import Guard, Objective, SpdCosine, SpdCrossEntropy, SpdDense, spd_loss


class Tiny(nn.Module):
    """An encoder small enough to check by hand: mean colours through one layer."""

    feature_dim = 8

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 8), nn.BatchNorm1d(8)

    def forward(self, images):
        return self.norm(self.layer(images.mean((2, 3))))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(6, 3, 8, 8, generator=generator) for _ in range(5)]


def test_spd_loss_by_hand():
    a = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    p = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # cosines 1 and 1 / sqrt(2)
    n = torch.tensor([[0.0, 5.0], [0.0, -1.0]])  # cosines 0 and -1
    expected = ((0 - 1) + (-1 - 1 / math.sqrt(2))) / 2
    assert spd_loss(a, p, n).item() == pytest.approx(expected, abs=1e-6)
    assert spd_loss(a, a, -a).item() == -2 and spd_loss(a, -a, a).item() == 2
    assert spd_loss(anchor=a, positive=p, negative=p).item() == 0
    with pytest.raises(ValueError, match=r"one shape \(B, D\)"):
        spd_loss(a, p, n[:1])
    with pytest.raises(ValueError, match=r"one shape \(B, D\)"):
        spd_loss(a[0], p[0], n[0])


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_spd_loss_is_bounded_and_blind_to_scale(count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    a, p, n = (torch.randn(count, width, generator=generator).double() for _ in range(3))
    loss = spd_loss(a, p, n)
    assert -2 - 1e-12 <= loss <= 2 + 1e-12
    torch.testing.assert_close(spd_loss(7 * a, 0.1 * p, 3 * n), loss)
    torch.testing.assert_close(spd_loss(a, n, p), -loss)


def test_a_step_down_the_gradient_moves_the_negative_away_and_the_positive_closer():
    generator = torch.Generator().manual_seed(0)
    a, p, n = (torch.randn(4, 16, generator=generator).requires_grad_() for _ in range(3))
    spd_loss(a, p, n).backward()
    with torch.no_grad():
        closer = F.cosine_similarity(a, p - 0.1 * p.grad) - F.cosine_similarity(a, p)
        away = F.cosine_similarity(a, n - 0.1 * n.grad) - F.cosine_similarity(a, n)
        moved = a - 0.1 * a.grad
        anchor = spd_loss(moved, p, n) - spd_loss(a, p, n)
    assert (closer > 0).all() and (away < 0).all() and anchor < 0


def test_simsiam_is_lightlys_composition(encoder, batches):
    torch.manual_seed(3)
    ours = Objective(SimSiam(encoder), eta=0.0)
    torch.manual_seed(3)
    projection, prediction = SimSiamProjectionHead(8, 2048, 2048), SimSiamPredictionHead()
    theirs, criterion = copy.deepcopy(encoder), NegativeCosineSimilarity()
    z1, z2 = (projection(theirs(view)) for view in batches[:2])
    p1, p2 = prediction(z1), prediction(z2)
    expected = 0.5 * (criterion(p1, z2.detach()) + criterion(p2, z1.detach()))
    terms = ours(tuple(batches[:2]))
    assert terms.keys() == {"baseline", "loss"}
    assert_same_loss_and_gradient(terms["loss"], ours.baseline.encoder, expected, theirs)


def test_without_its_stop_gradient_simsiam_has_the_same_loss_and_another_gradient(batches):
    losses, gradients = [], []
    for stop in (True, False):
        torch.manual_seed(0)
        baseline = SimSiam(Tiny(), stop_gradient=stop)
        losses.append(baseline.loss(*batches[:2]))
        losses[-1].backward()
        gradients.append(baseline.encoder.layer.weight.grad)
    assert torch.equal(losses[0], losses[1]) and not torch.allclose(*gradients)


def test_simclr_is_lightlys_composition(encoder, batches):
    torch.manual_seed(3)
    ours = Objective(SimCLR(encoder, temperature=0.1))
    torch.manual_seed(3)
    projection, theirs = SimCLRProjectionHead(8, 2048, 128), copy.deepcopy(encoder)
    z1, z2 = (projection(theirs(view)) for view in batches[:2])
    expected = NTXentLoss(0.1)(z1, z2)
    loss = ours(tuple(batches[:2]))["loss"]
    assert_same_loss_and_gradient(loss, ours.baseline.encoder, expected, theirs)

    # And the formula (Chen et al., eq. 1), pair by pair.
    z = F.normalize(torch.cat([z1, z2]), dim=1).double()
    similarity, naive = z @ z.T / 0.1, []
    for i in range(12):
        others = [k for k in range(12) if k != i]
        naive.append(similarity[i, others].logsumexp(0) - similarity[i, (i + 6) % 12])
    torch.testing.assert_close(torch.stack(naive).mean(), loss.double(), rtol=1e-5, atol=1e-5)


def test_moco_is_a_naive_loop_over_steps(encoder, batches):
    torch.manual_seed(3)
    ours = MoCo(encoder, queue=12, key_momentum=0.9, temperature=0.2)
    torch.manual_seed(3)
    projection, theirs = MoCoProjectionHead(8, 2048, 128), copy.deepcopy(encoder)
    follower, key_projection = copy.deepcopy(theirs), copy.deepcopy(projection)
    keys = [row.clone() for row in ours.queue]  # oldest first; filled at random
    optimizers = [
        torch.optim.SGD([*m.parameters(), *p.parameters()], lr=0.5)
        for m, p in ((ours.encoder, ours.projection), (theirs, projection))
    ]
    for step in range(5):
        query, key = batches[step], batches[(step + 1) % 5]
        with torch.no_grad():
            for slow, fast in ((follower, theirs), (key_projection, projection)):
                for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
                    old.copy_(0.9 * old + 0.1 * new)
            k = F.normalize(key_projection(follower(key)), dim=1)
        q = F.normalize(projection(theirs(query)), dim=1)
        expected = []
        for one, its_key in zip(q, k, strict=True):
            logits = torch.stack([one @ its_key, *(one @ old for old in keys)]) / 0.2
            expected.append(logits.logsumexp(0) - logits[0])
        expected = torch.stack(expected).mean()
        keys = keys[6:] + list(k)
        ours.before_step()
        loss = ours.loss(query, key)
        torch.testing.assert_close(loss, expected)
        for optimizer, value in zip(optimizers, (loss, expected), strict=True):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        pointer = int(ours.criterion.memory_bank.bank_ptr)
        assert pointer == 6 * (step + 1) % 12
        torch.testing.assert_close(ours.queue.roll(-pointer, 0), torch.stack(keys))
    assert not any(p.requires_grad for p in ours.key_encoder.parameters())


def test_mocos_queue_survives_a_state_dict_and_must_fit_the_batch(encoder, batches):
    ours, again = MoCo(encoder, queue=12), MoCo(Tiny(), queue=12)
    ours.loss(*batches[:2])
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again.queue, ours.queue)
    assert again.criterion.memory_bank.bank_ptr == 6
    with pytest.raises(ValueError, match="queue: 10 is no multiple of the batch of 6"):
        MoCo(encoder, queue=10).loss(*batches[:2])


def test_mocos_keys_are_normalised_in_groups_of_others(encoder, batches):
    ours = MoCo(encoder, queue=12, key_splits=3)
    torch.manual_seed(7)
    keys = ours._keys(batches[0])
    torch.manual_seed(7)
    shuffled, expected = torch.randperm(6).tolist(), torch.empty(6, 128)
    for group in (shuffled[:2], shuffled[2:4], shuffled[4:]):
        expected[group] = ours.key_projection(ours.key_encoder(batches[0][group])).detach()
    torch.testing.assert_close(keys, expected)


@pytest.mark.parametrize("projection", [0, 5])
def test_dense_spd_is_a_naive_loop_over_cells(projection):
    torch.manual_seed(2)
    encoder = load_encoder("resnet18")
    dense = SpdDense(encoder, (2, 3), projection)
    _, positive, negative, alpha = views = (
        None, torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64), torch.rand(3, 1, 64, 64) ** 4
    )  # fmt: skip
    terms = dense(SimSiam(encoder), views)
    expected = 0
    for stage, project in zip((2, 3), dense.projections, strict=True):
        p, n = (project(encoder.stages(x)[stage - 1]) for x in (positive, negative))
        side, cell = p.shape[-1], 64 // p.shape[-1]
        apart = together = weight = rest = 0
        for i, y, x in np.ndindex(3, side, side):
            place = slice(y * cell, (y + 1) * cell), slice(x * cell, (x + 1) * cell)
            w = alpha[i, 0][place].mean()
            cosine = F.cosine_similarity(p[i, :, y, x], n[i, :, y, x], dim=0)
            apart, weight = apart + w * cosine, weight + w
            together, rest = together + (1 - w) * cosine, rest + 1 - w
        expected += (apart / weight - together / rest) / 2
    torch.testing.assert_close(terms["spd"], expected, rtol=1e-4, atol=1e-5)


def test_the_guard_is_the_relative_squared_change_and_none_at_the_start():
    encoder = load_encoder("resnet18", None).train()
    guard, images = Guard(encoder, (2, 3)), torch.rand(2, 3, 64, 64)
    assert guard(encoder, images) == 0
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.01)
    before, now = guard.start.stages(images), copy.deepcopy(encoder).eval().stages(images)
    changes = [((a - b) ** 2).sum() / (a**2).sum() for a, b in zip(before, now, strict=True)]
    torch.testing.assert_close(guard(encoder, images), (changes[1] + changes[2]) / 2)
    assert guard(encoder, images).requires_grad and encoder.training


def test_supervised_is_cross_entropy_and_its_auxiliary_head_knows_who_is_blended(encoder, batches):
    images, anchor, positive, negative, _ = batches
    labels = torch.tensor([0, 2, 1, 0, 1, 2])
    baseline = Supervised(encoder, classes=3)
    ours = Objective(baseline, SpdCrossEntropy(8), eta=0.5)
    theirs = copy.deepcopy(ours)
    logits = theirs.baseline.classifier(theirs.baseline.encoder(images))
    both = theirs.spd.head(theirs.baseline.encoder(torch.cat([positive, negative])))
    blended = torch.tensor([0] * 6 + [1] * 6)
    expected = F.cross_entropy(logits, labels) + 0.5 * F.cross_entropy(both, blended)
    terms = ours((images, labels), (anchor, positive, negative))
    torch.testing.assert_close(terms["loss"], expected)
    assert terms["spd_accuracy"] == (both.argmax(1) == blended).float().mean()
    # A head that is sure of the right answer has a small loss, one that is sure of the wrong one
    # a large loss: 0 means weak, 1 means blended.
    black, white = torch.zeros(6, 3, 8, 8), torch.ones(6, 3, 8, 8)
    judge = SpdCrossEntropy(3)
    with torch.no_grad():
        judge.head.weight.copy_(torch.tensor([[-9.0] * 3, [9.0] * 3]))
        judge.head.bias.copy_(torch.tensor([9.0, -9.0]))
    mean_colour = type("Means", (), {"encoder": staticmethod(lambda x: x.mean((2, 3)))})
    assert judge(mean_colour, (black, black, white))["spd"] < 0.01
    assert judge(mean_colour, (black, white, black))["spd"] > 5
    with pytest.raises(ValueError, match="classes: 1; supervised pretraining needs at least 2"):
        Supervised(encoder, classes=1)


@pytest.mark.parametrize("joint", [True, False])
def test_spd_joins_a_baseline_as_eta_times_its_loss(joint, encoder, batches):
    torch.manual_seed(3)
    ours = Objective(SimSiam(encoder), SpdCosine(joint=joint), eta=0.1)
    theirs = copy.deepcopy(ours.baseline)
    baseline = theirs.loss(*batches[:2])
    triplet = batches[2:]
    if joint:
        projections = theirs.project(torch.cat(triplet)).chunk(3)
    else:
        projections = [theirs.project(view) for view in triplet]
    terms = ours(tuple(batches[:2]), tuple(triplet))
    torch.testing.assert_close(terms["spd"], spd_loss(*projections))
    expected = baseline + 0.1 * spd_loss(*projections)
    assert_same_loss_and_gradient(terms["loss"], ours.baseline.encoder, expected, theirs.encoder)
    difference = terms["cos_negative"] - terms["cos_positive"]
    torch.testing.assert_close(difference, terms["spd"].detach())
    with pytest.raises(ValueError, match="eta: -1 is negative"):
        Objective(ours.baseline, SpdCosine(), eta=-1)


def test_spd_without_a_triplet_is_refused(encoder, batches):
    with pytest.raises(ValueError, match=r"triplet: none, and eta is 0\.1"):
        Objective(SimSiam(encoder), SpdCosine(), eta=0.1)(batches[:2])


def test_a_fixed_anchor_has_no_gradient(encoder, batches):
    # The mean colours are the features: what reaches the images shows who moves.
    identity = type("Means", (), {"project": staticmethod(lambda x: x.mean((2, 3)))})
    triplet = tuple(view.requires_grad_() for view in batches[:3])
    SpdCosine(fixed_anchor=True)(identity, triplet)["spd"].backward()
    anchor, positive, negative = triplet
    assert not anchor.grad.any() and positive.grad.any() and negative.grad.any()


def test_losses_keep_single_precision_under_autocast(batches):
    torch.manual_seed(0)
    objective = Objective(SimCLR(load_encoder("resnet18").train()), SpdCosine(), 0.1)
    views = [F.interpolate(view, 32) for view in batches]
    with torch.autocast("cpu", torch.bfloat16):
        z = [objective.baseline.project(view) for view in views[:2]]
        terms = objective(tuple(views[:2]), tuple(views[2:]))
    assert z[0].dtype == torch.bfloat16
    assert {term.dtype for term in terms.values()} == {torch.float32}
    expected = NTXentLoss(0.1)(z[0].float(), z[1].float())
    torch.testing.assert_close(terms["baseline"], expected)


def assert_same_loss_and_gradient(loss, encoder, expected, theirs):
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for ours, other in zip(encoder.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, other.grad)
