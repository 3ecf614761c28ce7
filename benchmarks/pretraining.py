"""Pretraining steps, ours and lightly's plain loop, and what SPD adds to a step.

    python benchmarks/pretraining.py --batch 64 --size 64 --steps 20

One process, the same images, heads, optimiser and threads; steps are interleaved, so that a slow
spell of the machine hits all alike, and times are medians. In "ready-made" both are handed the
same views: ours is a step of ``spdlib.objectives`` inside ``spdlib.pretraining``
(with its checks of the terms), lightly's the loop of its documentation on a plain torchvision
ResNet. In "views in the step" ours makes them on the device, a batch at a time, and
lightly's takes its own transforms (``SimSiamTransform`` ...), image by image, in this process.
Then SPD: five views pass instead of two, so 2.5 times the baseline's step is what it has to cost
(MoCo's 3.25, one of whose two passes is forward only); the aim is at most a tenth more.

With a CUDA device: bf16 and channels-last for both, and ours through the whole pipeline (files
decoded by workers, views, step, log) against ready-made tensors. The paper's size is
``--encoder resnet50 --batch 256 --size 224``.
"""

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torchvision
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import (
    MoCoProjectionHead,
    SimCLRProjectionHead,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
)
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import MoCoV2Transform, SimCLRTransform, SimSiamTransform
from torch import nn
from torchvision.transforms.functional import to_pil_image

from spdlib.architectures import IMAGENET_NORM
from spdlib.datasets import COLUMNS, elpv
from spdlib.encoders import load_encoder
from spdlib.images import Images
from spdlib.loop import generator
from spdlib.pretraining import Views, decode, objective, pretrain
from spdlib.pretraining.presets import settings

METHODS = ("simsiam", "simclr", "moco")
# Passes of views through the network with SPD over those without, a backward pass counted as two
# forward ones: (2 + 3) / 2. MoCo's keys pass forward only: (1 + 1 / 3 + 3) / (1 + 1 / 3).
LEAST = {"simsiam": 2.5, "simclr": 2.5, "moco": 3.25}
TRANSFORMS = {"simsiam": SimSiamTransform, "simclr": SimCLRTransform, "moco": MoCoV2Transform}


class Plain(nn.Module):
    """A method as lightly's documentation composes it, on a plain torchvision model."""

    def __init__(self, method, name, temperature, queue):
        super().__init__()
        self.method = method
        self.backbone = torchvision.models.get_model(name, weights=None)
        width, self.backbone.fc = self.backbone.fc.in_features, nn.Identity()
        if method == "simsiam":
            self.head = SimSiamProjectionHead(width, 2048, 2048)
            self.prediction = SimSiamPredictionHead(2048, 512, 2048)
            self.criterion = NegativeCosineSimilarity()
        elif method == "simclr":
            self.head, self.criterion = SimCLRProjectionHead(width, 2048, 128), NTXentLoss(0.1)
        else:
            self.head = MoCoProjectionHead(width, 2048, 128)
            self.slow_backbone = copy.deepcopy(self.backbone)
            self.slow_head = copy.deepcopy(self.head)
            deactivate_requires_grad(self.slow_backbone)
            deactivate_requires_grad(self.slow_head)
            self.criterion = NTXentLoss(temperature, memory_bank_size=(queue, 128))

    def forward(self, first, second):
        if self.method == "moco":
            update_momentum(self.backbone, self.slow_backbone, 0.99)
            update_momentum(self.head, self.slow_head, 0.99)
            query = self.head(self.backbone(first))
            with torch.no_grad():
                key = self.slow_head(self.slow_backbone(second))
            return self.criterion(query, key)
        z1, z2 = self.head(self.backbone(first)), self.head(self.backbone(second))
        if self.method == "simclr":
            return self.criterion(z1, z2)
        p1, p2 = self.prediction(z1), self.prediction(z2)
        return 0.5 * (self.criterion(p1, z2.detach()) + self.criterion(p2, z1.detach()))


def median_times(contenders, steps, wait):
    """Median seconds of each; interleaved."""
    times = {name: [] for name in contenders}
    for number in range(steps + 2):
        for name, run in contenders.items():
            wait()
            started = time.perf_counter()
            run()
            wait()
            if number > 1:  # the first two warm up
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def stepper(network, loss_of, device, given):
    """A function that takes one optimiser step on what ``given`` returns."""
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad], lr=0.01, momentum=0.9
    )

    def step():
        inputs = given()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(network, inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def ours(network, inputs):
    terms = network(*inputs)
    loss = terms["loss"]
    # What spdlib.pretraining does each step: one look at all terms.
    values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
    assert all(abs(value) < float("inf") for value in values)
    return loss


def compare(method, images, arguments, device, wait):
    name, size = arguments.encoder, arguments.size
    changes = {"encoder": name, "size": size, "batch_size": arguments.batch, "epochs": 1}
    if method == "moco":
        changes["queue"] = 16 * arguments.batch
    chosen = {eta: settings(method, eta=eta, **changes) for eta in (0.0, 0.1)}

    def network(eta):
        torch.manual_seed(0)
        return objective(load_encoder(name).train(), chosen[eta]).to(device)

    torch.manual_seed(0)
    plain = Plain(method, name, chosen[0.0].temperature, chosen[0.0].queue).train().to(device)
    plain = plain.to(memory_format=torch.channels_last)
    views = Views(chosen[0.1])
    batch = images[: arguments.batch].to(device)
    strong, triplet = views(batch, 2, generator(0))
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in IMAGENET_NORM)
    normalised = [
        ((view - mean) / std).contiguous(memory_format=torch.channels_last) for view in strong
    ]
    transform = TRANSFORMS[method](input_size=size)
    pictures = [to_pil_image(image) for image in images[: arguments.batch]]
    keys = iter(range(1, 10**9))

    def theirs_made():
        pairs = [transform(picture) for picture in pictures]
        made = [torch.stack(part).to(device) for part in zip(*pairs, strict=True)]
        return [view.contiguous(memory_format=torch.channels_last) for view in made]

    def ours_made(eta):
        return lambda: Views(chosen[eta])(batch, 2, generator(next(keys)))

    def theirs(network, inputs):
        loss = network(*inputs)
        loss.detach().item()
        return loss

    contenders = {
        "ours, ready-made views": stepper(network(0.0), ours, device, lambda: (strong,)),
        "lightly's loop, ready-made views": stepper(plain, theirs, device, lambda: normalised),
        "ours + SPD, ready-made views": stepper(
            network(0.1), ours, device, lambda: (strong, triplet)
        ),
        "ours, views in the step": stepper(network(0.0), ours, device, ours_made(0.0)),
        "ours + SPD, views in the step": stepper(network(0.1), ours, device, ours_made(0.1)),
        "lightly's loop, views in the step": stepper(
            copy.deepcopy(plain), theirs, device, theirs_made
        ),
    }
    times = median_times(contenders, arguments.steps, wait)
    print(f"\n{method}: {name}, batch {arguments.batch}, {size} x {size}")
    for what, seconds in times.items():
        print(f"{what:<44}{seconds:9.3f} s{arguments.batch / seconds:10.1f} images/s")
    base = times["ours, ready-made views"]
    plain_time = times["lightly's loop, ready-made views"]
    print(f"ours / lightly's, ready-made: {base / plain_time:.3f} (aim: at most 1)")
    for kind in (" ready-made views", " views in the step"):
        ratio = times[f"ours + SPD,{kind}"] / times[f"ours,{kind}"]
        least = LEAST[method]
        print(f"with SPD / without,{kind}: {ratio:.2f} (aim: at most {1.1 * least:.2f})")
    return times


def pipeline(images, arguments, device, wait):
    """The whole of ``pretrain`` on files, against steps on ready-made views."""
    import pandas as pd
    from torchvision.io import write_jpeg

    count = arguments.batch * arguments.steps
    changes = {"encoder": arguments.encoder, "weights": "random", "size": arguments.size}
    s = settings("simsiam", "paper", eta=0.1, batch_size=arguments.batch, epochs=1, **changes)
    ready = compare("simsiam", images, arguments, device, wait)["ours + SPD, ready-made views"]
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            write_jpeg(image, str(Path(folder) / f"{number}.jpg"), quality=90)
        paths = [str(Path(folder) / f"{number % len(images)}.jpg") for number in range(2 * count)]
        table = pd.DataFrame({name: None for name in COLUMNS}, index=range(len(paths)))
        table = table.assign(path=paths, category="cells", label=0)
        seconds = []
        for part in (table[:count], table):  # the difference leaves out starting and stopping
            started = time.perf_counter()
            pretrain(
                load_encoder(arguments.encoder), Images(part, s.source_size, memory=0), s,
                workers=arguments.workers,
                precision="bf16-mixed" if device == "cuda" else "32-true",
            )  # fmt: skip
            seconds.append(time.perf_counter() - started)
    whole = count / (seconds[1] - seconds[0])
    print(f"\nwhole pipeline, SimSiam + SPD, {arguments.workers} workers: {whole:.1f} images/s, ")
    share = whole * ready / arguments.batch
    print(f"{share:.0%} of {arguments.batch / ready:.1f} with ready-made views (aim: 85 %)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="side of the views, pixels")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each")
    parser.add_argument("--encoder", default="resnet18", help="resnet18 or resnet50")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--pipeline", action="store_true", help="files to steps, by workers")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    threads = f"{torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if device == "cuda" else threads
    print(f"{where}, torch {torch.__version__}")
    cells = elpv().head(max(64, arguments.batch))
    images = decode(cells, round(arguments.size * 8 / 7))
    if arguments.pipeline:
        pipeline(images, arguments, device, wait)
        return
    for method in arguments.methods:
        compare(method, images, arguments, device, wait)


if __name__ == "__main__":
    main()
