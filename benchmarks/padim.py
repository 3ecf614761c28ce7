"""spdlib.padim against anomalib's PaDiM and the 2021 script that everyone copies, side by side.

    python benchmarks/padim.py                  # needs: pip install -e '.[bench]'
    python benchmarks/padim.py --steps fit      # one of them alone

For anomalib: ``pip install anomalib==2.7.0``; it is left out, with a line, where it is missing.

200 training and 80 test images at 224 x 224 (56 x 56 positions), d = 100 of ResNet-18's channels
and d = 550 of ResNet-50's. All run in this process, in turn. Wall and CPU seconds are those of the
fastest turn; peak memory is what the process grew by above the step's inputs, sampled every
millisecond. The widely copied script (xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master,
2021) is no library: its steps are written again here.

Weights are random: they change no time.
"""

import argparse
import contextlib
import gc
import importlib.util
import logging
import threading
import time
import warnings
from dataclasses import dataclass

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from torch.utils.flop_counter import FlopCounterMode

from spdlib.encoders import load_encoder
from spdlib.padim import PaDiM, smoothing_matrix

SIZE, GRID, BATCH = 224, 56, 32
POSITIONS = GRID * GRID
BACKBONES = {100: "resnet18", 550: "resnet50"}
OURS, ANOMALIB, SCRIPT = "spdlib", "anomalib 2.7", "2021 script"


@dataclass
class Measured:
    """What one call took: wall and CPU seconds, peak growth in bytes, and what it returned."""

    wall: float
    cpu: float
    peak: int
    result: object


def measured(function, *arguments):
    """Calls the function once, measured."""
    gc.collect()
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    peak = [before]

    def watch():
        while not done.wait(0.001):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done.set()
    watcher.join()
    return Measured(wall, cpu, peak[0] - before, result)


@dataclass
class Step:
    """One thing to do, and what it cannot be done without.

    Attributes:
        title: What it is.
        calls: By contender, ``call(inputs, result of the step before)``.
        inputs: By contender, makes the inputs; not measured, dropped after the call.
        needs: By contender, roughly the bytes that a call takes at its peak.
        products: Floating-point operations of matrix products and factorisations.
        convolutions: Floating-point operations of convolutions.
        moved: Bytes that must be read or written at least once.
        values: ``values(contender, result)``, brought to one form, to compare; or None.
    """

    title: str
    calls: dict
    inputs: dict
    needs: dict
    products: float = 0
    convolutions: float = 0
    moved: float = 0
    values: object = None


def anomalib_model(d, network):
    """anomalib's model on the same network and the same channels, or None without anomalib."""
    if importlib.util.find_spec("anomalib") is None:
        return None
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        from anomalib.models.image.padim.torch_model import PadimModel

        model = PadimModel(BACKBONES[d], pre_trained=False, n_features=d)
    # timm's ResNets and torchvision's share their names; the last stage and head are not built.
    missing, _ = model.feature_extractor.feature_extractor.load_state_dict(
        network.state_dict(), strict=False
    )
    assert not missing, missing
    return model


@contextlib.contextmanager
def quiet():
    """Without the log lines of libraries."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class Setup:
    """Encoder, models and random features for one d."""

    def __init__(self, d):
        self.d = d
        torch.manual_seed(0)
        self.encoder = load_encoder(BACKBONES[d])
        self.peer = anomalib_model(d, self.encoder.network)
        if self.peer is not None:
            self.peer.idx = self.new_model().channels

    def new_model(self):
        model = PaDiM(self.encoder, n_features=self.d)
        model.grid, model.image_size = (GRID, GRID), (SIZE, SIZE)
        return model

    def stages(self):
        """The stages' feature maps of one batch."""
        generator = torch.Generator().manual_seed(1)
        return [
            torch.rand(BATCH, width, GRID >> i, GRID >> i, generator=generator)
            for i, width in enumerate(self.encoder.stage_channels[:3])
        ]

    def embeddings(self, images, seed):
        """Features (P, images, d) that hang together over channels, as real ones do."""
        generator = torch.Generator().manual_seed(seed)
        mix = torch.randn(self.d, self.d, generator=torch.Generator().manual_seed(0))
        x = torch.randn(POSITIONS, images, self.d, generator=generator)
        return x @ (mix / self.d**0.5)


def channels(setup, images):
    """From the stages of all images, in batches, to what a fit takes in."""
    d, model = setup.d, setup.new_model()
    sizes = [BATCH] * (images // BATCH) + [images % BATCH] * (images % BATCH > 0)

    def channels_last():  # as our encoder hands them on
        return [stage.contiguous(memory_format=torch.channels_last) for stage in setup.stages()]

    def ours(stages, _):
        # The block is used again once the statistics have taken it in.
        block = model._empty(BATCH)
        for size in sizes:
            model._choose([stage[:size] for stage in stages], block[:, :size])
        return block[:, : sizes[-1]]

    def anomalib(stages, _):
        names = setup.peer.layers
        bank = [
            setup.peer.generate_embedding({n: s[:k] for n, s in zip(names, stages, strict=True)})
            for k in sizes
        ]
        return torch.vstack(bank)[-sizes[-1] :]

    def script(stages, _):
        whole = [torch.cat([stage[:k] for k in sizes]) for stage in stages]
        stack = whole[0]
        for stage in whole[1:]:
            stack = enlarged_beside(stack, stage)
        return torch.index_select(stack, 1, model.channels)[-sizes[-1] :]

    total = sum(setup.encoder.stage_channels[:3])
    read = sum(stage[0].numel() for stage in setup.stages())
    return [
        Step(
            "channels",
            {OURS: ours, ANOMALIB: anomalib, SCRIPT: script},
            {OURS: channels_last, ANOMALIB: setup.stages, SCRIPT: setup.stages},
            {
                OURS: 4 * POSITIONS * BATCH * d * 1.5,
                ANOMALIB: 4 * POSITIONS * (2 * images * d + 2.5 * BATCH * total),
                SCRIPT: 4 * POSITIONS * images * total * 3.2,
            },
            moved=4 * images * (read + POSITIONS * d),
            values=lambda name, x: x if name == OURS else x.flatten(2).permute(2, 0, 1),
        )
    ]


def enlarged_beside(large, small):
    """The script's way to repeat each value of a grid for the cells of a finer one, and stack."""
    batch, width, height, _ = large.shape
    ratio = height // small.shape[2]
    cells = F.unfold(large, ratio, stride=ratio).view(batch, width, -1, *small.shape[2:])
    stack = torch.zeros(batch, width + small.shape[1], cells.shape[2], *small.shape[2:])
    for i in range(cells.shape[2]):
        stack[:, :, i] = torch.cat((cells[:, :, i], small), 1)
    stack = stack.view(batch, -1, small.shape[2] * small.shape[3])
    return F.fold(stack, (height, height), ratio, stride=ratio)


def fit_and_score(setup, train, test):
    """From the embeddings of all images to the statistics; with them, to distances."""
    d = setup.d

    def ours_fit(x, _):
        model = setup.new_model()
        block = model._empty(1 + model._images_at_once())
        for part in x.split(block.shape[1] - 1, 1):
            rows = block[:, : 1 + part.shape[1]]
            rows[:, 1:] = part  # where choosing channels writes
            model._update(rows)
        del block, rows
        model._factor()
        return model

    def anomalib_fit(x, _):
        setup.peer.gaussian.fit(x)
        return setup.peer.gaussian

    def script_fit(x, _):
        vectors = x.flatten(2).numpy()
        covariances = np.zeros((d, d, POSITIONS), np.float32)
        for i in range(POSITIONS):
            covariances[:, :, i] = np.cov(vectors[:, :, i], rowvar=False) + 0.01 * np.eye(d)
        return vectors.mean(0), covariances

    def ours_score(x, model):
        return torch.cat([model._distances(part) for part in x.split(BATCH, 1)], 1)

    def anomalib_score(x, gaussian):
        stats = [gaussian.mean, gaussian.inv_covariance]
        distance = setup.peer.anomaly_map_generator.compute_distance
        return torch.cat([distance(part, stats) for part in x.split(BATCH)])

    def script_score(x, fitted):
        mean, covariances = fitted
        vectors, distances = x.flatten(2).numpy(), []
        for i in range(POSITIONS):
            inverse = np.linalg.inv(covariances[:, :, i])
            distances.append([mahalanobis(v[:, i], mean[:, i], inverse) for v in vectors])
        return torch.tensor(np.array(distances))

    def inputs(images, seed):
        def peers():  # the peers hold (B, d, H, W)
            x = setup.embeddings(images, seed).permute(1, 2, 0)
            return x.contiguous().unflatten(2, (GRID, GRID))

        return {OURS: lambda: setup.embeddings(images, seed), ANOMALIB: peers, SCRIPT: peers}

    matrices, vectors = 4 * POSITIONS * d * d, 4 * POSITIONS * d
    return [
        Step(
            "fit",
            {OURS: ours_fit, ANOMALIB: anomalib_fit, SCRIPT: script_fit},
            inputs(train, 1),
            {OURS: 1.5 * matrices, ANOMALIB: 4.6 * matrices, SCRIPT: 1.2 * matrices},
            products=POSITIONS * (train * d * d + d**3 / 3),
            moved=2 * matrices + vectors * train,
        ),
        Step(
            "score",
            {OURS: ours_score, ANOMALIB: anomalib_score, SCRIPT: script_score},
            inputs(test, 2),
            {OURS: vectors * BATCH, ANOMALIB: 4 * vectors * BATCH, SCRIPT: vectors},
            products=POSITIONS * test * d * d,
            moved=matrices / 2 * -(-test // BATCH) + vectors * test,
            values=lambda name, y: y.flatten(1).T if name == ANOMALIB else y,
        ),
    ]


def smooth(setup, images):
    """From distances on the grid to maps of the images' size."""

    def distances():
        return torch.rand(images, GRID, GRID, generator=torch.Generator().manual_seed(3))

    def ours(x, _):
        matrix = smoothing_matrix(GRID, SIZE)
        return matrix @ x @ matrix.T

    def anomalib(x, _):
        generator = setup.peer.anomaly_map_generator
        return generator.smooth_anomaly_map(generator.up_sample(x[:, None], (SIZE, SIZE)))

    def script(x, _):
        large = F.interpolate(x[:, None], SIZE, mode="bilinear")[:, 0].numpy()
        return torch.tensor(np.stack([gaussian_filter(one, sigma=4) for one in large]))

    calls = {OURS: ours, ANOMALIB: anomalib, SCRIPT: script}
    return [
        Step(
            "smooth",
            calls,
            dict.fromkeys(calls, distances),
            dict.fromkeys(calls, 5e8),
            products=2 * images * (SIZE * GRID * GRID + SIZE * SIZE * GRID),
            moved=4 * images * (GRID**2 + SIZE**2),
            values=away_from_the_edge,
        )
    ]


def away_from_the_edge(_, maps):
    """Where anomalib's border rule, which mirrors without repeating the edge, plays no part."""
    return maps.reshape(-1, SIZE, SIZE)[:, 24:-24, 24:-24]


def end_to_end(setup, train, test):
    """From images in memory to maps, the network's forward passes included."""

    def images():
        generator = torch.Generator().manual_seed(4)
        return [torch.rand(n, 3, SIZE, SIZE, generator=generator) for n in (train, test)]

    def ours(inputs, _):
        model = PaDiM(setup.encoder, n_features=setup.d).fit(inputs[0].split(BATCH))
        return model.score(inputs[1].split(BATCH))[0]

    def anomalib(inputs, _):
        # Its pre-processing normalises the images; PaDiM's encoder here does so inside.
        mean, std = setup.encoder.mean, setup.encoder.std
        model = setup.peer.train()
        model.feature_extractor.eval()
        for batch in inputs[0].split(BATCH):
            model((batch - mean) / std)
        model.fit()
        model.eval()
        batches = inputs[1].split(BATCH)
        return torch.cat([model((batch - mean) / std).anomaly_map for batch in batches])

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        setup.encoder.stages(torch.rand(1, 3, SIZE, SIZE))
    calls, d = {OURS: ours, ANOMALIB: anomalib}, setup.d
    return [
        Step(
            "images to maps",
            calls,
            dict.fromkeys(calls, images),
            {OURS: 1e9, ANOMALIB: 3e9},
            products=POSITIONS * d * d * (train + test + d / 3),
            convolutions=counter.get_total_flops() * (train + test),
            values=away_from_the_edge,
        )
    ]


def machine():
    """What this machine reaches: operations a second, of two libraries, and bytes a second."""
    a, b = torch.rand(2048, 2048), torch.rand(1 << 26)
    c = torch.empty_like(b)
    image = torch.rand(32, 64, GRID, GRID).contiguous(memory_format=torch.channels_last)
    kernel = torch.rand(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        product = 2 * 2048**3 / fastest(torch.mm, a, a)
        convolution = 2 * 64 * 9 * image.numel() / fastest(F.conv2d, image, kernel, None, 1, 1)
    return product, convolution, 2 * b.numel() * 4 / fastest(c.copy_, b)


def fastest(function, *arguments):
    return min(measured(function, *arguments).wall for _ in range(5))


def run(steps, repeats, peaks, peer):
    """Runs the contenders in turn, each from the first step to the last; prints a line for each."""
    names = [n for n in steps[0].calls if n != ANOMALIB or peer is not None]
    taken = {(name, step.title): [] for step in steps for name in names}
    values = {}
    for _ in range(repeats):
        for name in names:
            result = None
            for step in steps:
                free = psutil.virtual_memory().available
                inputs = step.inputs[name]()
                if step.needs[name] > 0.95 * free:
                    print(
                        f"  {step.title:<16}{name:<14}left out: takes about "
                        f"{step.needs[name] / 1e9:.1f} GB, {free / 1e9:.1f} are free"
                    )
                    break
                with torch.no_grad(), quiet():
                    once = measured(step.calls[name], inputs, result)
                result, once.result = once.result, None
                taken[name, step.title].append(once)
                if step.values:
                    values[name, step.title] = step.values(name, result).double()
                del inputs
    for step in steps:
        for name in names:
            if taken[name, step.title]:
                print(line(step, name, taken, values, peaks), flush=True)
    if len(steps) > 1:
        print_sums(steps, names, taken)


def line(step, name, taken, values, peaks):
    key, reference = (name, step.title), (OURS, step.title)
    best, base = (min(taken[k], key=lambda once: once.wall) for k in (key, reference))
    peak = max(once.peak for once in taken[key])
    text = f"  {step.title:<16}{name:<14}{best.wall:9.3f}{best.cpu:9.3f}{peak / 1e9:9.2f}   "
    if name == OURS:
        return text + bound(step, best.wall, peaks)
    text += f"{best.wall / base.wall:6.1f}x time"
    if key in values:
        difference = (values[key] - values[reference]).abs().max() / values[key].abs().max()
        text += f"; differs by {float(difference):.0e}"
    return text


def bound(step, wall, peaks):
    """Which of arithmetic and memory traffic bounds a step, and how near to it the time is."""
    arithmetic = step.products / peaks[0] + step.convolutions / peaks[1]
    memory = step.moved / peaks[2]
    kind = "arithmetic" if arithmetic > memory else "memory traffic"
    least = max(arithmetic, memory)
    return f"bound by {kind}: {least:.3f} s; takes {wall / least:.1f} times that"


def print_sums(steps, names, taken):
    title = " and ".join(step.title for step in steps)
    walls = {}
    for name in names:
        turns = [[once.wall for once in taken[name, step.title]] for step in steps]
        if all(turns):
            walls[name] = sum(map(min, turns))
            ratio = f"{walls[name] / walls[OURS]:6.1f}x time" if name != OURS else ""
            print(f"  {title:<16}{name:<14}{walls[name]:9.3f}{'':<21}{ratio}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, nargs="+", default=[100, 550], choices=[100, 550])
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3, help="at d = 550, one fewer")
    given = parser.parse_args()

    peaks = machine()
    print(
        f"{torch.get_num_threads()} threads; this machine reaches {peaks[0] / 1e9:.0f} GFLOP/s in "
        f"matrix products, {peaks[1] / 1e9:.0f} in convolutions, {peaks[2] / 1e9:.0f} GB/s copying"
    )
    for d in given.features:
        setup = Setup(d)
        if setup.peer is None:
            print("anomalib is left out: pip install anomalib==2.7.0")
        print(f"\n{BACKBONES[d]}, d = {d}, {given.train} training and {given.test} test images")
        print(f"  {'':<30}{'wall s':>9}{'CPU s':>9}{'peak GB':>9}")
        for name in given.steps:
            make, features, images = STEPS[name]
            if d in features:
                counts = [getattr(given, split) for split in images]
                run(make(setup, *counts), given.repeats - (d == 550), peaks, setup.peer)


# What there is to time, for which d, and on which images.
STEPS = {
    "channels": (channels, (100, 550), ("train",)),
    "fit": (fit_and_score, (100, 550), ("train", "test")),
    "smooth": (smooth, (100,), ("test",)),
    "end_to_end": (end_to_end, (100,), ("train", "test")),
}

if __name__ == "__main__":
    main()
