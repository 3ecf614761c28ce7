"""SmoothBlend and the views against their peers, and against the training step they feed.

    python benchmarks/smoothblend.py         # needs: pip install -e '.[bench]'

One process, the same images, the same threads. First SmoothBlend on a batch, with the same draws
for all: ours, image by image with Pillow, image by image with numpy and scipy. Then the weak
global view: ours, torchvision image by image, kornia on the batch. Then what the SPD triplet
costs beside a SimSiam training step of ResNet-18 on ready-made views, and the images a second of
a whole SimSiam + SPD step with views made in the step and with ready-made ones. The step runs on
a GPU (bf16, channels-last, batch 256) where there is one. Times are medians.
"""

import argparse
import statistics
import time

import kornia.augmentation as K
import numpy as np
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from spdlib.datasets import SampleImages, elpv
from spdlib.encoders import load_encoder
from spdlib.methods import StrongView
from spdlib.objectives import spd_loss
from spdlib.smoothblend import SmoothBlend
from spdlib.views import WEAK, WeakView, spd_triplet

SIGMA = 8


def with_pillow(image, factors, source, target):
    """SmoothBlend of one Pillow image, as most implementations of CutPaste are written."""
    brightness, contrast, saturation, hue = factors
    patch = F.adjust_contrast(F.adjust_brightness(image.crop(source), brightness), contrast)
    patch = F.adjust_hue(F.adjust_saturation(patch, saturation), hue)
    foreground = Image.new("RGB", image.size)
    foreground.paste(patch, target[:2])
    mask = Image.new("L", image.size)
    mask.paste(255, target)
    return Image.composite(foreground, image, mask.filter(ImageFilter.GaussianBlur(SIGMA)))


def with_scipy(image, factors, source, target):
    """SmoothBlend of one uint8 array (H, W, 3), in float32."""
    brightness, contrast, saturation, hue = factors
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    patch = image[source[1] : source[3], source[0] : source[2]].astype(np.float32) / 255
    patch = patch * brightness
    patch = contrast * patch + (1 - contrast) * (patch @ luma).mean()
    patch = saturation * patch + (1 - saturation) * (patch @ luma)[..., None]
    hsv = rgb_to_hsv(patch.clip(0, 1))
    hsv[..., 0] = (hsv[..., 0] + hue) % 1
    mask = np.zeros(image.shape[:2], np.float32)
    foreground = np.zeros(image.shape, np.float32)
    window = (slice(target[1], target[3]), slice(target[0], target[2]))
    mask[window], foreground[window] = 1, 255 * hsv_to_rgb(hsv)
    alpha = gaussian_filter(mask, SIGMA, mode="constant")[..., None]
    return ((1 - alpha) * image + alpha * foreground).round().astype(np.uint8)


def median_times(contenders, repeats, synchronise=lambda: None):
    """Median seconds of each; interleaved, so that a slow spell of the machine hits all alike."""
    times = {name: [] for name in contenders}
    for number in range(repeats + 1):
        for name, run in contenders.items():
            synchronise()
            started = time.perf_counter()
            run()
            synchronise()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def show(title, seconds, images):
    base = next(iter(seconds.values()))
    print(f"\n{title}")
    print(f"{'':<34}{'ms/image':>9}{'x ours':>8}")
    for name, spent in seconds.items():
        print(f"{name:<34}{1e3 * spent / images:9.3f}{spent / base:8.1f}")


def blends(batch, repeats):
    images = (batch * 255).round().byte()
    arrays = images.permute(0, 2, 3, 1).numpy()
    pillow = [Image.fromarray(array) for array in arrays]
    blend = SmoothBlend(sigma=SIGMA)
    draw = blend.draw(len(images), tuple(images.shape[-2:]), torch.Generator().manual_seed(0))
    about = [draw.jitter.tolist(), draw.source_boxes.tolist(), draw.target_boxes.tolist()]

    def each(function, items):
        return [
            function(item, factors, source, tuple(target))
            for item, factors, source, target in zip(items, *about, strict=True)
        ]

    ours = blend.blend(images, draw).permute(0, 2, 3, 1).numpy().astype(int)
    # Pillow's blur takes three boxes for a Gaussian and extends the mask past the borders.
    peers = {"scipy": each(with_scipy, arrays), "Pillow": each(with_pillow, pillow)}
    for name, theirs in peers.items():
        error = np.abs(ours - np.stack([np.asarray(image) for image in theirs]))
        print(f"largest difference to {name}: {error.max()} of 255, mean {error.mean():.4f}")
    times = median_times(
        {
            # Drawing is part of ours; the others are handed the draw.
            "ours, uint8": lambda: blend(images, generator=torch.Generator()),
            "ours, float32": lambda: blend(batch, generator=torch.Generator()),
            "Pillow, image by image": lambda: each(with_pillow, pillow),
            "numpy + scipy, image by image": lambda: each(with_scipy, arrays),
        },
        repeats,
    )
    show(f"SmoothBlend, {len(batch)} images of {tuple(batch.shape[-2:])}", times, len(batch))


def weak_views(batch, size, repeats):
    strength = dict(zip(("brightness", "contrast", "saturation", "hue"), WEAK.jitter, strict=True))
    torchvision = v2.Compose(
        [
            v2.RandomResizedCrop(size, WEAK.area, WEAK.aspect),
            v2.RandomApply([v2.ColorJitter(**strength)], WEAK.jitter_p),
            v2.RandomApply([v2.GaussianBlur(3, WEAK.blur)], WEAK.blur_p),
            v2.RandomHorizontalFlip(),
        ]
    )
    kornia = K.AugmentationSequential(
        K.RandomResizedCrop((size, size), WEAK.area, WEAK.aspect),
        K.ColorJitter(**strength, p=WEAK.jitter_p),
        K.RandomGaussianBlur((3, 3), WEAK.blur, p=WEAK.blur_p),
        K.RandomHorizontalFlip(),
    )
    weak, generator = WeakView(size), torch.Generator().manual_seed(0)
    times = median_times(
        {
            "ours": lambda: weak(batch, generator),
            "torchvision v2, image by image": lambda: torch.stack([torchvision(x) for x in batch]),
            "kornia, batch": lambda: kornia(batch),
        },
        repeats,
    )
    show(f"weak global view, {len(batch)} images to {size} x {size}", times, len(batch))


def steps(batch, size, device, repeats):
    batch = batch.to(device)
    weak, strong, blend = WeakView(size), StrongView("simsiam", size), SmoothBlend()
    generator = torch.Generator().manual_seed(0)
    encoder = load_encoder("resnet18").train()
    projection = SimSiamProjectionHead(encoder.feature_dim, 2048, 2048)
    prediction = SimSiamPredictionHead(2048, 512, 2048)
    network = torch.nn.ModuleList([encoder, projection, prediction]).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    criterion = NegativeCosineSimilarity()

    def make_strong():
        return strong(batch, generator), strong(batch, generator)

    def make_triplet():
        return spd_triplet(batch, weak, blend, generator)

    def step(views, triplet=None):
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            z1, z2 = (projection(encoder(view)) for view in views)
            p1, p2 = prediction(z1), prediction(z2)
            loss = 0.5 * (criterion(p1, z2.detach()) + criterion(p2, z1.detach()))
            if triplet is not None:
                loss = loss + 0.1 * spd_loss(*projection(encoder(torch.cat(triplet))).chunk(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    views, triplet = make_strong(), make_triplet()
    times = median_times(
        {
            "SPD triplet": make_triplet,
            "two strong views": make_strong,
            "SimSiam step, views ready-made": lambda: step(views),
            "SimSiam + SPD step, views ready-made": lambda: step(views, triplet),
            "SimSiam + SPD step, views made in it": lambda: step(make_strong(), make_triplet()),
        },
        repeats,
        torch.cuda.synchronize if device == "cuda" else lambda: None,
    )
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} cores"
    print(f"\nResNet-18 on {name}, batch {len(batch)}, {size} x {size}")
    for what, seconds in times.items():
        print(f"{what:<38}{seconds:9.3f} s{len(batch) / seconds:10.1f} images/s")
    share = times["SPD triplet"] / times["SimSiam step, views ready-made"]
    print(f"the triplet costs {share:.1%} of the SimSiam step (aim: at most 10 %)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="side of the views, pixels")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--step-repeats", type=int, default=3)
    arguments = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = round(arguments.size * 8 / 7)
    cells = SampleImages(elpv().head(256 if device == "cuda" else 64), size=source)
    images = torch.stack([cells[i]["image"] for i in range(len(cells))])
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    small = torch.nn.functional.interpolate(images[:64], arguments.size, mode="bilinear")
    blends(small, arguments.repeats)
    weak_views(images[:64], arguments.size, arguments.repeats)
    steps(images, arguments.size, device, arguments.step_repeats)


if __name__ == "__main__":
    main()
