"""Unit costs of docs/scale.md, and what they add up to.

    python benchmarks/scale.py           # two minutes on one core
    python benchmarks/scale.py --device cuda --batch 64 --encoders resnet18 resnet50

FLOPs are counted by torch on real steps. Times are CPU seconds of one thread, the least of the
repeats: they hold on a busy machine, too, if not to the last ten percent. GPU hours rest on an
assumed rate, ``--gpu-tflops``. On a GPU only PaDiM is timed, by the clock, and images come from
the machine's memory.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.utils.flop_counter import FlopCounterMode

from spdlib.datasets.samples import COLUMNS, make_table
from spdlib.encoders import load_encoder
from spdlib.images import Images
from spdlib.metrics import pixel_metrics
from spdlib.padim import PaDiM
from spdlib.pretraining import Views, objective
from spdlib.pretraining.presets import settings

IMAGENET, SIZE = 1_281_167, 224
# The one-class split: 90 % of 9,621 normal images to learn, the rest and 1,200 anomalies to test.
VISA = {"objects": 12, "train": 8_659, "test": 2_162}
FACTORY = {"objects": 1, "train": 10_000, "test": 1_000_000}
PIXELS = SIZE * SIZE
ANOMALOUS = 0.006  # share of anomalous pixels; it sets the metrics' memory
METHODS = ("simsiam", "moco", "simclr", "supervised")


def least(function, repeats, device="cpu"):
    """Least seconds of a call: CPU seconds, or on a GPU by the clock."""
    times = []
    clock = time.process_time if device == "cpu" else time.perf_counter
    for _ in range(repeats):
        started = clock()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - started)
    return min(times)


def step_flops(method, eta):
    """A training step of ResNet-50 at 224 pixels: FLOPs an image, forward and backward; passes;
    trained weights; bytes an image that the backward pass needs kept, in float32."""
    # What a step costs does not depend on these; two images allow no more.
    queue = {"queue": 64, "key_splits": 1} if method == "moco" else {}
    s = settings(method, "paper", eta=eta, batch_size=2, **queue)
    model = objective(load_encoder(s.encoder).train(), s, classes=1000)
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8)
    strong, triplet = Views(s)(images, model.baseline.views, torch.Generator().manual_seed(0))
    if method == "supervised":
        strong = (*strong, torch.tensor([0, 1]))
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {w.untyped_storage().data_ptr() for w in model.parameters()}
    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        loss = model(strong, triplet)["loss"]
        saved = sum(size for pointer, size in kept.items() if pointer not in own)
        loss.backward()
    passes = sum(view.ndim == 4 for view in strong) + (3 if eta else 0)
    passes -= bool(eta) and s.spd == "cross_entropy"  # the anchor plays no part
    weights = sum(w.numel() for w in model.parameters() if w.requires_grad)
    return counter.get_total_flops() / 2, passes, weights, saved / 2


def pretraining(tflops, methods):
    print(f"\nImageNet with ResNet-50 at {SIZE} pixels, {tflops} TFLOP/s a GPU (assumed)")
    print(f"{'':<18}{'views':>6}{'GFLOP':>8}{'epochs':>7}{'batch':>6}{'EFLOP':>7}{'GPU h':>7}"
          f"{'images/s':>9}{'MB/step':>8}{'MB/image':>9}")  # fmt: skip
    for method in methods:
        for eta in (0.0, 0.1):
            flops, views, weights, saved = step_flops(method, eta)
            published = settings(method, "paper")
            total = flops * IMAGENET * published.epochs
            name = method + (" + SPD" if eta else "")
            rate = tflops * 1e12 / flops
            print(f"{name:<18}{views:>6}{flops / 1e9:>8.0f}{published.epochs:>7}"
                  f"{published.batch_size:>6}{total / 1e18:>7.1f}{total / tflops / 3.6e15:>7.0f}"
                  f"{rate:>9.0f}{4 * weights / 1e6:>8.0f}{saved / 1e6:>9.0f}")  # fmt: skip


def decoding(repeats):
    """Photographs a second and core, from a JPEG file to the pixels that views are cropped from."""
    side = settings("simsiam", "paper").source_size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photograph.jpg"
        photograph = Image.fromarray(load_sample_image("china.jpg")).resize((500, 375))
        photo = dict.fromkeys(COLUMNS) | {"label": 0}
        photograph.save(path, quality=90)
        photographs = Images(make_table([photo | {"path": str(path)}]), side, memory=0)
        rate = 20 / least(lambda: [photographs.read(0) for _ in range(20)], repeats)
    print(f"\nJPEG 500 x 375 to {side} x {side}: {rate:.0f} images/s a core")


def padim(name, repeats, device, batch):
    """Seconds of PaDiM's parts, and what they make of VisA and of a factory."""
    encoder = load_encoder(name).to(device)
    model = PaDiM(encoder)
    images = torch.rand(batch, 3, SIZE, SIZE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.stages(images[:1].to(device))
    model.fit([images]).score([images])

    def seconds(function):
        return least(function, repeats, device)

    features = seconds(lambda: encoder_only(encoder, images.to(device))) / batch
    # Five times as many images against once: the rest is an image's own cost, without factoring.
    few, many = (seconds(lambda n=n: model.fit([images] * n)) for n in (1, 5))
    an_image = (many - few) / (4 * batch)
    factor = max(few - batch * an_image, 0.0)
    score = seconds(lambda: model.score([images])) / batch
    d, positions = model.n_features, model.grid[0] * model.grid[1]
    memory = 4 * positions * d * d / 1e9
    print(f"\nPaDiM, {name}, d = {d}: statistics {memory:.2f} GB an object; an image costs "
          f"{counter.get_total_flops() / 1e9:.1f} GFLOP of features")  # fmt: skip
    print(f"  ms: features {1e3 * features:.3g}, with learning {1e3 * an_image:.3g}, with scoring "
          f"{1e3 * score:.3g}; factoring {factor:.2g} s an object")  # fmt: skip
    for title, n in (("VisA", VISA), ("factory", FACTORY)):
        fit = n["train"] * an_image + n["objects"] * factor
        scored = n["test"] * score
        print(f"  {title:<8} learn {n['train']:>9,}: {fit / 60:7.1f} min"
              f"   score {n['test']:>9,}: {scored / 60:8.1f} min")  # fmt: skip


def encoder_only(encoder, images):
    with torch.no_grad():
        encoder.stages(images)


def metrics(millions, repeats):
    rng = np.random.default_rng(0)
    labels = rng.random(int(millions * 1e6)) < ANOMALOUS
    scores = (rng.gamma(4, 2, len(labels)) + 6 * labels).astype(np.float32)
    second = least(lambda: pixel_metrics(scores, labels), repeats) / len(labels)
    an_image = 1e3 * second * PIXELS
    print(f"\npixel metrics: {1e9 * second:.0f} ns a pixel, {an_image:.1f} ms an image")
    for title, n in (("VisA", VISA), ("factory", FACTORY)):
        pixels = n["test"] * PIXELS
        print(f"  {title:<8} {pixels / 1e6:>9,.0f} million pixels: {pixels * second:8.1f} s; "
              f"as float32 {4 * pixels / 1e9:.1f} GB, the anomalous ones "
              f"{4 * ANOMALOUS * pixels / 1e9:.3f} GB")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu-tflops", type=float, default=60, help="sustained, a GPU; assumed")
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoders", nargs="*", default=["efficientnet_lite0", "resnet18"])
    parser.add_argument("--million-pixels", type=float, default=10)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=16, help="images at once, for PaDiM")
    given = parser.parse_args()
    torch.manual_seed(0)
    if given.device == "cuda":
        print(torch.cuda.get_device_name())
        for name in given.encoders:
            padim(name, given.repeats, given.device, given.batch)
        return
    torch.set_num_threads(1)
    pretraining(given.gpu_tflops, given.methods)
    decoding(given.repeats)
    for name in given.encoders:
        padim(name, given.repeats, given.device, given.batch)
    metrics(given.million_pixels, given.repeats)


if __name__ == "__main__":
    main()
