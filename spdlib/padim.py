"""PaDiM: a Gaussian of patch features at every position (Defard et al., ICPR workshops 2021).

Features of the encoder's first three stages, brought to the largest grid; a random choice of
channels; at each position a mean and a covariance over normal images, plus 0.01 on its diagonal;
the Mahalanobis distance to them, upsampled and smoothed, is the anomaly map, its maximum the
image's score.

This one streams: images pass once, in batches, and only the statistics stay. Channels are chosen
before features are stacked, covariances are factored by Cholesky, never inverted, and upsampling
and smoothing are one small matrix applied from both sides.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from spdlib.encoders import Encoder, load_encoder
from spdlib.paths import replacing, show

FORMAT = "spdlib.padim.v1"
EPSILON = 0.01  # added to each covariance's diagonal, section 3.3 of the paper
SIGMA = 4.0  # of the map's Gaussian, pixels
STAGES = 3

# Channels kept at random, section 4.1 of the paper; for EfficientNet-Lite0, as for ResNet-18.
N_FEATURES = {
    "efficientnet_lite0": 100, "resnet18": 100, "resnet50": 550, "wide_resnet50_2": 550,
}  # fmt: skip

Batch = Tensor | dict[str, Any]


class PaDiM:
    """A one-class detector and segmenter on top of any encoder.

    Args:
        encoder: Where features come from; on its device the work is done (statistics stay on
            the CPU beside an MPS device, which lacks the factorisation).
        n_features: Channels d kept of all channels of the three stages; by default as the
            paper's for the encoder.
        seed: Of the choice of channels.
        memory: Bytes that may be used beyond the statistics, which take 4 P d^2 bytes for P
            positions (at 224 pixels and d = 100, 125 MB; at d = 550, 3.8 GB). By default a
            quarter of what is free.

    Batches are tensors (B, 3, H, W) of RGB floats in [0, 1], or dicts with such an ``"image"``,
    as ``spdlib.datasets.loader`` yields.

    Raises:
        ValueError: ``n_features`` is not between 1 and the channels there are.

    >>> images = torch.rand(4, 3, 64, 64)
    >>> maps, scores = PaDiM(load_encoder("resnet18"), n_features=8).fit([images]).score([images])
    >>> maps.shape, scores.shape
    (torch.Size([4, 64, 64]), torch.Size([4]))
    """

    def __init__(
        self,
        encoder: Encoder,
        n_features: int | None = None,
        seed: int = 0,
        memory: int | None = None,
    ):
        total = sum(encoder.stage_channels[:STAGES])
        n_features = N_FEATURES[encoder.name] if n_features is None else n_features
        if not 1 <= n_features <= total:
            raise ValueError(f"n_features: {n_features} of {encoder.name}'s {total} channels")
        self.encoder, self.n_features, self.seed, self.memory = encoder, n_features, seed, memory
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        self.channels = order[:n_features].sort().values
        self._clear()

    def _clear(self) -> None:
        self.count = 0
        self.image_size: tuple[int, int] = (0, 0)
        self.grid: tuple[int, int] = (0, 0)
        self.mean = torch.empty(0)
        # One (P, d, d) tensor holds two: above the diagonal the sums of products of deviations,
        # on and below it the Cholesky factor. The diagonal of the sums is apart.
        self._packed = torch.empty(0)
        self._diagonal = torch.empty(0)

    def fit(self, batches: Iterable[Batch]) -> "PaDiM":
        """Learns the normal images, in one pass; forgets what it learned before.

        Raises:
            ValueError: There are fewer than two images, or they differ in size.
        """
        self._clear()
        return self.extend(batches)

    def extend(self, batches: Iterable[Batch]) -> "PaDiM":
        """Learns further normal images, as if they had been there from the start.

        Errors as for :meth:`fit`.
        """
        if self.count:
            self._unpack()
        waiting: list[Tensor] = []
        for features in self._features(batches):
            waiting.append(features)
            # Each update reads and writes all statistics, so it waits for enough images.
            if sum(f.shape[1] for f in waiting) >= self._images_at_once():
                self._update(torch.cat(waiting, 1))
                waiting = []
        if waiting:
            self._update(torch.cat(waiting, 1))
        if self.count < 2:
            raise ValueError(
                f"batches: a covariance needs at least two images, there are {self.count}"
            )
        self._factor()
        return self

    def score(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Anomaly maps (N, H, W) and image scores (N,), on the CPU.

        Raises:
            ValueError: Nothing has been fitted, or images differ in size from those fitted.
        """
        pairs = list(self.stream(batches))
        if not pairs:
            raise ValueError("batches: there are none")
        maps, scores = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return maps, scores

    @torch.no_grad()
    def stream(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Like :meth:`score`, a batch at a time, for more images than fit into memory."""
        if not self.count:
            raise ValueError("nothing has been fitted yet: call fit first")
        smooth = smoothing_matrix(self.grid[0], self.image_size[0]).to(self._home)
        across = smoothing_matrix(self.grid[1], self.image_size[1]).to(self._home)
        for features in self._features(batches):
            distances = self._distances(features).T.view(-1, *self.grid)
            maps = (smooth @ distances @ across.T).cpu()
            yield maps, maps.flatten(1).amax(1)

    def _features(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Chosen channels at every position, (P, B, d), in evaluation mode and no gradient."""
        parameter = next(self.encoder.parameters())
        was_training = self.encoder.training
        self.encoder.eval()
        try:
            for batch in batches:
                images = batch["image"] if isinstance(batch, dict) else batch
                size = tuple(images.shape[-2:])
                if self.image_size not in ((0, 0), size):
                    raise ValueError(f"batches: images of {size}, fitted {self.image_size}")
                self.image_size = size
                with torch.no_grad():
                    embedded = self._embed(images.to(parameter.device, parameter.dtype))
                self.grid = tuple(embedded.shape[-2:])
                yield embedded.flatten(2).permute(2, 0, 1).to(self._home, torch.float32)
        finally:
            self.encoder.train(was_training)

    def _embed(self, images: Tensor) -> Tensor:
        """Chosen channels (B, d, h, w) of the stages, at the grid of the first."""
        stages = self.encoder.stages(images, STAGES)
        grid, start, parts = stages[0].shape[-2:], 0, []
        for stage in stages:
            width = stage.shape[1]
            inside = (self.channels >= start) & (self.channels < start + width)
            if inside.any():
                chosen = stage[:, (self.channels[inside] - start).to(stage.device)]
                parts.append(F.interpolate(chosen, grid, mode="nearest"))
            start += width
        return torch.cat(parts, 1)

    def _update(self, x: Tensor) -> None:
        """Adds images (P, B, d) to mean and sums of products, by Chan et al.'s update (1979).

        Deviations are taken from each part's own mean, and the difference of the means enters
        as one more row: no large sums are subtracted, no digits lost.
        """
        images = x.shape[1]
        mean = x.mean(1)
        rows = x - mean[:, None]
        if self.count:
            shift = mean - self.mean
            weight = (self.count * images / (self.count + images)) ** 0.5
            rows = torch.cat([rows, weight * shift[:, None]], 1)
            self.mean += shift * (images / (self.count + images))
            self._packed.baddbmm_(rows.mT, rows)
        else:
            self.mean = mean
            self._packed = torch.bmm(rows.mT, rows)
        self.count += images

    def _factor(self) -> None:
        self._diagonal = self._packed.diagonal(dim1=1, dim2=2).clone()
        eye = EPSILON * torch.eye(self.n_features, device=self._home)
        for part in self._chunks(copies=3):
            products = self._packed[part]
            factor = torch.linalg.cholesky(products / (self.count - 1) + eye)
            self._packed[part] = factor + products.triu(1)

    def _unpack(self) -> None:
        for part in self._chunks(copies=2):
            upper = self._packed[part].triu(1)
            self._packed[part] = upper + upper.mT + torch.diag_embed(self._diagonal[part])

    def _distances(self, x: Tensor) -> Tensor:
        """Mahalanobis distances (P, B) of features (P, B, d)."""
        distances = x.new_empty(x.shape[:2])
        for part in self._chunks(copies=1):
            deviations = (x[part] - self.mean[part, None]).mT
            # Only the factor, the lower triangle, is read.
            white = torch.linalg.solve_triangular(self._packed[part], deviations, upper=False)
            distances[part] = white.square().sum(1).sqrt()
        return distances

    def covariance(self) -> Tensor:
        """The regularised covariances (P, d, d), for looking at; a copy of full size."""
        upper = self._packed.triu(1)
        products = upper + upper.mT + torch.diag_embed(self._diagonal)
        return products / (self.count - 1) + EPSILON * torch.eye(self.n_features, device=self._home)

    def save(self, path: str | Path) -> Path:
        """Writes the fitted model and its encoder to one safetensors file."""
        if not self.count:
            raise ValueError("nothing has been fitted yet: call fit first")
        tensors = {"mean": self.mean, "packed": self._packed, "diagonal": self._diagonal}
        tensors["channels"] = self.channels
        state = self.encoder.network.state_dict()
        tensors |= {f"encoder.{name}": tensor for name, tensor in state.items()}
        config = {
            "encoder": self.encoder.name,
            "provenance": self.encoder.provenance,
            "n_features": self.n_features,
            "seed": self.seed,
            "count": self.count,
            "image_size": self.image_size,
            "grid": self.grid,
        }
        with replacing(path) as temporary:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                temporary,
                {"format": FORMAT, "config": json.dumps(config)},
            )
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "PaDiM":
        """Reads what :meth:`save` wrote; nothing is computed and nothing unpickled.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It holds something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no model at {show(path)}")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{show(path)} was not written by PaDiM.save")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(metadata["config"])
        encoder = load_encoder(config["encoder"])
        encoder.provenance = config["provenance"]
        prefix = "encoder."
        encoder.network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        model = cls(encoder.to(device), config["n_features"], config["seed"])
        # The stored choice counts, whatever today's torch would draw from the seed.
        model.channels = tensors["channels"]
        model.count = config["count"]
        model.image_size, model.grid = tuple(config["image_size"]), tuple(config["grid"])
        model.mean, model._packed, model._diagonal = (
            tensors[name].to(model._home) for name in ("mean", "packed", "diagonal")
        )
        return model

    @property
    def _home(self) -> torch.device:
        device = next(self.encoder.parameters()).device
        return torch.device("cpu") if device.type == "mps" else device

    def _budget(self) -> int:
        return self.memory or free_memory(self._home) // 4

    def _images_at_once(self) -> int:
        """Images to wait for before an update: up to d, which reads and computes alike."""
        positions = self.grid[0] * self.grid[1]
        # Features wait once, are joined, and centred: three copies.
        fit = self._budget() // (3 * 4 * positions * self.n_features)
        return int(min(max(fit, 1), max(64, self.n_features // 4)))

    def _chunks(self, copies: int) -> Iterator[slice]:
        """Slices of the positions, so that ``copies`` of their d x d matrices fit the budget."""
        positions = self.grid[0] * self.grid[1]
        size = self._budget() // (copies * 4 * self.n_features**2)
        size = int(min(max(size, 1), 256))
        for start in range(0, positions, size):
            yield slice(start, start + size)


def smoothing_matrix(grid: int, size: int, sigma: float = SIGMA) -> Tensor:
    """The matrix (size, grid) that upsamples a signal bilinearly and smooths it by a Gaussian.

    Both are linear and separable, so a map D is smoothed as ``A D B^T``. Border: the Gaussian
    sees the map mirrored with its edge repeated (scipy's ``reflect``).
    """
    units = torch.eye(grid)[:, None]
    upsampled = F.interpolate(units, size, mode="linear", align_corners=False)[:, 0].numpy()
    smoothed = gaussian_filter1d(upsampled.astype(np.float64), sigma, axis=1, mode="reflect")
    return torch.from_numpy(smoothed.T.copy()).float()


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; 4 GiB where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 << 30
