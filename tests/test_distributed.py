"""Two processes take the step that one would take: really, over gloo, on the CPU."""

import multiprocessing
import os
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from spdlib.distributed import GlobalBatchNorm, synchronise
from spdlib.methods import MoCo, SimCLR, SimSiam
from spdlib.objectives import Objective, SpdCosine
from spdlib.pretraining.cli import main

METHODS = {
    "simsiam": SimSiam,
    "moco": lambda encoder: MoCo(encoder, queue=16, key_momentum=0.9),
    "simclr": SimCLR,
}
CASES = [(method, eta) for method in METHODS for eta in (0.0, 0.5)]


class Tiny(nn.Module):
    """Both kinds of batch normalisation: alone, and timm's, which activates in one."""

    feature_dim = 16

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2), BatchNormAct2d(16, act_layer=nn.SiLU),
        )  # fmt: skip

    def forward(self, images):
        return self.layers(images).mean((2, 3))


def make(method, eta):
    torch.manual_seed(0)
    # In double precision a mistake cannot pass for rounding.
    return Objective(METHODS[method](Tiny()), SpdCosine(), eta).double()


def views():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(8, 3, 16, 16, generator=generator).double() for _ in range(5)]


def two_steps(objective, batches):
    """Loss, gradient and running statistics of two steps; the second sees the first's effects."""
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.01)
    seen = []
    for order in (batches, batches[::-1]):
        optimizer.zero_grad()
        loss = objective(tuple(order[:2]), tuple(order[2:]))["loss"]
        loss.backward()
        gradient = [p.grad.flatten() for p in objective.parameters() if p.grad is not None]
        seen += [loss.detach(), torch.cat(gradient)[::7]]
        optimizer.step()
    inner = getattr(objective, "module", objective)
    statistics = [b.flatten() for name, b in inner.named_buffers() if "running" in name]
    queue = [inner.baseline.queue.flatten()] if hasattr(inner.baseline, "queue") else []
    return [*seen, torch.cat(statistics), *queue]


def work(rank, port, folder):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    mine = [batch.chunk(2)[rank] for batch in views()]
    for method, eta in CASES:
        objective = synchronise(make(method, eta))
        found = two_steps(DistributedDataParallel(objective, broadcast_buffers=False), mine)
        for loss in (found[0], found[2]):
            distributed.all_reduce(loss)
            loss /= 2
        torch.save(found, folder / f"{method}{eta}_{rank}.pt")
    distributed.destroy_process_group()


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, for each case and process."""
    folder, port = tmp_path_factory.mktemp("found"), free_port()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spdlib.pretraining", "spdlib.datasets"])
    processes = [context.Process(target=work, args=(rank, port, folder)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    return lambda method, eta, rank: torch.load(folder / f"{method}{eta}_{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "eta"), CASES)
def test_two_processes_have_the_loss_and_gradient_of_one(method, eta, found):
    expected = two_steps(make(method, eta), views())
    for rank in (0, 1):
        for ours, theirs in zip(found(method, eta, rank), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert expected[1].abs().max() > 1e-3  # 1e-5 is small beside the gradient


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does(tmp_path):
    given = [
        "--method", "moco", "--queue", "8", "--eta", "0.5", "--encoder", "efficientnet_lite0",
        "--weights", "random", "--size", "32", "--batch-size", "8", "--epochs", "1",
        "--held-out", "3", "--workers", "0", "--accelerator", "cpu", "--precision", "64-true",
    ]  # fmt: skip
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(30):
        pixels = generator.integers(0, 255, (36, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    given += ["--dataset", str(tmp_path / "images")]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
           "--master-port", str(free_port())]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*run, "-m", "spdlib.pretraining", *given, "--out", str(tmp_path / "two")],
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("moco_spd_eta0.5, 3 steps") == 1

    assert main([*given, "--out", str(tmp_path / "one")]) == 0
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("one", "two")]
    assert len(logs[0]) == 4
    columns = ["step", "epoch", "lr", "loss", "baseline", "spd", "cos_positive", "cos_negative"]
    pd.testing.assert_frame_equal(logs[0][columns], logs[1][columns], rtol=1e-4)
    encoders = [load_file(tmp_path / name / "encoder.safetensors") for name in ("one", "two")]
    one, two = (torch.cat([v.double().flatten() for v in e.values()]) for e in encoders)
    assert (one - two).norm() / one.norm() < 1e-4


def test_a_global_norm_alone_is_the_local_one_and_keeps_names():
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    images = torch.rand(4, 3, 32, 32).double()
    names = list(network.state_dict())
    expected = [network.train()(images), network.eval()(images)]
    again = timm.create_model("tf_efficientnet_lite0", num_classes=0).double()
    again.load_state_dict(network.state_dict())
    synchronise(again)
    assert not any(type(m) is nn.BatchNorm2d for m in again.modules())
    assert any(isinstance(m, GlobalBatchNorm) for m in again.modules())
    assert list(again.state_dict()) == names
    torch.testing.assert_close(again.eval()(images), expected[1])
    torch.testing.assert_close(again.train()(images), expected[0])
