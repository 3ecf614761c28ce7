"""The looks of painted defects; to add one, add a function and a record in PAINTERS.

A painter draws size, place, shape and contrast from a generator and returns how strongly each
pixel changes, float (H, W) in [0, 1]; whether it gets darker or brighter is not its business.
Lengths are relative to the image's sides, so that a defect looks alike at any resolution.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, zoom

# Nothing is painted nearer to the border: PaDiM crops 224 of 256 pixels, and a defect outside of
# the crop would be an anomaly that nobody can see.
MARGIN = 0.07
STEP = 0.03  # of a line

Shape = tuple[int, int]
Alpha: TypeAlias = NDArray[Any]


def crack(rng: Generator, shape: Shape) -> Alpha:
    """A thin jagged line that may branch, as of a broken wafer."""
    length, width = _log_uniform(rng, 0.15, 1.5), rng.uniform(0.004, 0.009)
    start, heading = rng.uniform(0.12, 0.88, 2), rng.uniform(0, 2 * np.pi)
    main = _walk(rng, start, heading, length)
    strokes = [(main, width)]
    for _ in range(rng.integers(0, 3) if length > 0.3 else 0):
        fork, turn = main[rng.integers(len(main))], rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
        branch = _walk(rng, fork, heading + turn, length * rng.uniform(0.2, 0.5))
        strokes.append((branch, 0.8 * width))
    return _drawn(shape, 0.0015, lines=strokes) * _log_uniform(rng, 0.3, 0.8)


def scratch(rng: Generator, shape: Shape) -> Alpha:
    """One to three smooth parallel strokes, as of something dragged across."""
    length, width = _log_uniform(rng, 0.12, 0.8), rng.uniform(0.004, 0.008)
    start, heading = rng.uniform(0.12, 0.88, 2), rng.uniform(0, 2 * np.pi)
    line = _walk(rng, start, heading, length, jitter=0, bend=rng.uniform(-0.05, 0.05))
    aside = 3 * width * np.array([-np.sin(heading), np.cos(heading)])
    strokes = [(line, width)]
    for number in range(1, rng.integers(1, 4)):
        first, last = np.sort(rng.integers(0, len(line), 2))
        strokes.append((line[first : last + 2] + number * aside, width))
    return _drawn(shape, 0.0015, lines=strokes) * _log_uniform(rng, 0.3, 0.8)


def spot(rng: Generator, shape: Shape) -> Alpha:
    """One to three blobs with a wavy edge, as of dirt or a local defect of the material."""
    radius, centre = _log_uniform(rng, 0.02, 0.13), rng.uniform(0.2, 0.8, 2)
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    polygons = []
    for number in range(rng.integers(1, 4)):
        edge = np.ones_like(angles)
        for wave in range(2, 7):
            edge += rng.normal(0, 0.3 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
        size = radius * np.array([rng.uniform(0.6, 1.2), 1]) * (rng.uniform(0.3, 0.7) ** number)
        middle = centre + (number > 0) * rng.normal(0, 1.5 * radius, 2)
        polygons.append((middle + size * circle * np.maximum(edge, 0.2)[:, None], 1.0))
    return _drawn(shape, 0.12 * radius, polygons=polygons) * _log_uniform(rng, 0.25, 0.8)


def missing_contact(rng: Generator, shape: Shape) -> Alpha:
    """A band of neighbouring stripes, as where fingers do not touch the cell."""
    across, along = _log_uniform(rng, 0.012, 0.2), rng.uniform(0.08, 0.32)
    left, top = rng.uniform(0.08, 0.92 - across), rng.uniform(0.08, 0.92 - along)
    edges = left + np.linspace(0, across, 1 + max(1, round(across / 0.015)))
    polygons = []
    for near, far in pairwise(edges):
        # Fingers fail to different degrees and over slightly different lengths.
        start, end = top + rng.uniform(0, 0.1) * along, top + rng.uniform(0.8, 1) * along
        corners = np.array([(near, start), (far, start), (far, end), (near, end)])
        polygons.append((corners, rng.uniform(0.5, 1)))
    return _drawn(shape, 0.004, polygons=polygons) * _log_uniform(rng, 0.25, 0.9)


PAINTERS: dict[str, Callable[[Generator, Shape], Alpha]] = {
    "painted crack": crack,
    "painted scratch": scratch,
    "painted spot": spot,
    "painted missing contact": missing_contact,
}


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _walk(rng, start, heading, length, jitter=0.16, bend=0.0) -> np.ndarray:
    """Points of a line (N, 2), x and y, up to its length or to where it nears the border."""
    points = [np.asarray(start)]
    for _ in range(max(2, round(length / STEP))):
        # Cracks turn a little at every step, and sharply at some.
        heading += bend + jitter * rng.normal() * (3 if rng.random() < 0.15 else 1)
        points.append(points[-1] + STEP * np.array([np.cos(heading), np.sin(heading)]))
        if points[-1].min() < MARGIN or points[-1].max() > 1 - MARGIN:
            break
    return np.array(points)


def _drawn(shape: Shape, blur: float, lines=(), polygons=()) -> Alpha:
    """Coverage (H, W) of lines (points, width) and polygons (corners, shade), blurred a little."""
    scale = max(1, 900 // max(shape))  # drawn several times as fine where the image is small
    image = Image.new("L", (shape[1] * scale, shape[0] * scale))
    draw = ImageDraw.Draw(image)
    for points, width in lines:
        thick = max(1, round(width * min(shape) * scale))
        draw.line(_corners(points, image), fill=255, width=thick, joint="curve")
    for points, shade in polygons:
        draw.polygon(_corners(points, image), fill=round(255 * shade))
    fine = np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BOX), np.float32) / 255
    return gaussian_filter(fine, blur * min(shape))


def _corners(points: Alpha, image: Image.Image) -> list[tuple[float, ...]]:
    return [tuple(point) for point in points * image.size]


def mottle(rng: Generator, shape: Shape) -> Alpha:
    """Uneven shade, float (H, W) in [0.6, 1], so that a defect is no flat sticker."""
    coarse = rng.uniform(0.6, 1, (24, 24))
    fine = zoom(coarse, (shape[0] / 24, shape[1] / 24), order=1, grid_mode=True, mode="nearest")
    return fine[: shape[0], : shape[1]]
