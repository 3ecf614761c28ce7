"""spdlib.attention against the grad-cam package's defaults, side by side.

    python benchmarks/attention.py

ResNet-18 at 224 x 224, batches of eight. The package's way: GradCAM on the whole network with the
same target. Ours also finds the nearest normal image, for which the package's user runs the
network once more. Time is the median of rounds in which all take turns; the difference is the
largest between two maps, each stretched to 0..1 as the package does.
"""

import argparse
import statistics
import time

import torch
from pytorch_grad_cam import GradCAM

from spdlib.attention import CosineDistance, NormalBank, attention_maps, embed, normalise
from spdlib.datasets import elpv
from spdlib.datasets.samples import loader
from spdlib.encoders import load_encoder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--weights", help="'imagenet' or a file; by default random weights")
    parser.add_argument("--stage", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)

    cells = elpv("poly")
    normals = cells[cells.split == "train"].head(32)
    encoder = load_encoder(given.encoder, given.weights)
    bank = NormalBank.build(encoder, loader(normals))
    images = next(iter(loader(cells[cells.label == 1], batch_size=given.batch)))["image"]
    targets = [CosineDistance(feature) for feature in bank.nearest(embed(encoder, images)).feature]

    def ours():
        return normalise(attention_maps(encoder, images, bank, given.stage).maps)

    def package():
        with GradCAM(encoder, [encoder.stage_module(given.stage)]) as cam:
            return torch.from_numpy(cam(images, targets))

    def package_and_search():
        nearest = bank.nearest(embed(encoder, images))
        targets[:] = [CosineDistance(feature) for feature in nearest.feature]
        return package()

    ways = {"ours, search included": ours, "package, search not included": package,
            "package, search included": package_and_search}  # fmt: skip
    maps = {name: way() for name, way in ways.items()}
    seconds = {name: [] for name in ways}
    for _ in range(given.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)

    print(f"{given.encoder}, stage {given.stage}, batch {given.batch}, {given.threads} threads")
    first = next(iter(ways))
    for name in ways:
        median = statistics.median(seconds[name])
        ratio = median / statistics.median(seconds[first])
        print(
            f"{name:<29} {median / given.batch * 1e3:6.1f} ms/image {given.batch / median:6.1f} "
            f"images/s   ours is {ratio:4.2f} x   difference "
            f"{(maps[name] - maps[first]).abs().max():.1e}"
        )


if __name__ == "__main__":
    main()
