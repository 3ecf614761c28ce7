"""PaDiM: a Gaussian of patch features at every position (Defard et al., ICPR workshops 2021).

Features of the encoder's first three stages, brought to the largest grid; a random choice of
channels; at each position a mean and a covariance over normal images, plus 0.01 on its diagonal;
the Mahalanobis distance to them, upsampled and smoothed, is the anomaly map, its maximum the
image's score.

This one streams: images pass once, in batches, and only the statistics stay. Channels are chosen
before features are stacked, covariances are factored by Cholesky, never inverted, and upsampling
and smoothing are one small matrix applied from both sides.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from spdlib.encoders import Encoder, load_encoder, single_precision
from spdlib.features import Batch, checked, evaluating, stage_maps
from spdlib.memory import free_memory
from spdlib.settings import Count, EncoderName
from spdlib.weights import Kind

EPSILON = 0.01  # added to the diagonal of each covariance (equation 1 and setup of the paper)
SIGMA = 4.0  # of the map's Gaussian, pixels
STAGES = 3
# Bytes of matrices worked on at once: on a CPU as many as its cache keeps from step to step,
# elsewhere as many as keep it busy.
CHUNK_CPU, CHUNK = 2 << 20, 1 << 30

Side = Annotated[int, Field(gt=0, le=1 << 16)]


class Description(BaseModel):
    """A fitted model's plain values, as they stand in its file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    encoder: EncoderName
    provenance: dict[str, Any]
    n_features: Count
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)]
    count: Annotated[int, Field(ge=2)]
    image_size: tuple[Side, Side]
    grid: tuple[Side, Side]


ENCODER = "encoder."  # begins the names of the encoder's tensors in a model's file
FILE = Kind("model", "PaDiM.save", "spdlib.padim.v1", "config", Description)


class PaDiM:
    """A one-class detector and segmenter on top of any encoder.

    Args:
        encoder: Source of features. The work is done on its device; beside an MPS device,
            which lacks the factorisation, statistics are kept and factored on the CPU.
        n_features: Channels d kept of all channels of the three stages; by default as the
            paper's for the encoder.
        seed: Seed for choosing channels; the choice is stored with the model.
        memory: Bytes to work with beyond the statistics, which take 4 P d^2 bytes for P
            positions (at 224 pixels 125 MB for d = 100, 3.8 GB for d = 550). It sets how many
            images and positions are worked on at once; by default a quarter of what is free.

    Batches are tensors (B, 3, H, W) of RGB floats in [0, 1], or dicts with such an ``"image"``,
    as ``spdlib.datasets.loader`` yields. Each is seen once and forgotten.

    Attributes:
        channels: The chosen channels (d,), ascending, counted through the stages.
        count: Images learned.
        grid: Positions, (rows, columns).
        image_size: Size of the images, (height, width).
        mean: Means (P, d).

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
        n_features = encoder.architecture.padim_features if n_features is None else n_features
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
            ValueError: There are fewer than two images, they differ in size, or they are not
                RGB floats in [0, 1].
            MemoryError: The statistics do not fit into what is free.
        """
        self._clear()
        return self.extend(batches)

    def extend(self, batches: Iterable[Batch]) -> "PaDiM":
        """Learns further normal images, as if they had been there from the start.

        Interrupted, or stopped by a bad batch, the model stays whole: it holds the ``count``
        images that it had learned by then. Errors as for :meth:`fit`.
        """
        if self.count:
            self._unpack()
        block, filled, capacity = torch.empty(0), 0, 0
        try:
            for images, parts in self._stages(batches):
                if not capacity:
                    capacity = self._images_at_once()
                    # Row 0 of each position is for the difference of the means.
                    block = self._empty(1 + capacity)
                # An update reads and writes all statistics, so it waits for enough images.
                if filled + images > capacity:
                    self._update(block[:, : 1 + filled])
                    filled = 0
                self._choose_all(parts, block[:, 1 + filled : 1 + filled + images])
                filled += images
            if filled:
                self._update(block[:, : 1 + filled])
        finally:
            del block
            if self.count:
                self._factor()
        if self.count < 2:
            raise ValueError(f"batches: a covariance needs two images or more, not {self.count}")
        return self

    def score(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Anomaly maps (N, H, W) and image scores (N,), on the CPU.

        A map's value is a Mahalanobis distance, upsampled bilinearly and smoothed (sigma 4
        pixels, the edge mirrored); the image's score is the map's maximum.

        Raises:
            ValueError: Nothing has been fitted, images differ in size from those fitted, or
                they are not RGB floats in [0, 1].
        """
        pairs = list(self.stream(batches))
        if not pairs:
            raise ValueError("batches: there are none")
        maps, scores = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return maps, scores

    def stream(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Like :meth:`score`, a few images at a time, for more than fit into memory."""
        self._check_fitted()
        down = smoothing_matrix(self.grid[0], self.image_size[0]).to(self._home)
        across = smoothing_matrix(self.grid[1], self.image_size[1]).to(self._home)
        for images, parts in self._stages(batches):
            features = self._empty(images)
            self._choose_all(parts, features)
            distances = self._distances(features).T.reshape(-1, *self.grid)
            maps = (down @ distances @ across.T).cpu()
            yield maps, maps.flatten(1).amax(1)

    def _stages(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Iterator[list[Tensor]]]]:
        """The encoder's stages, in evaluation mode, for as many images as memory allows.

        Yields how many images there are, and their stages, a few images at a time.
        """
        with evaluating(self.encoder):
            for batch in batches:
                images = checked(batch, self.image_size)
                self.image_size = images.shape[-2], images.shape[-1]
                if not self.grid[0]:
                    self.grid = self._grid_for(images)
                    self._check_memory()
                for part in images.split(self._images_at_once()):
                    yield len(part), stage_maps(self.encoder, part, STAGES)

    @torch.no_grad()
    def _grid_for(self, images: Tensor) -> tuple[int, int]:
        first = self.encoder.stages(images[:1].to(self.encoder.mean), 1)[0]
        return first.shape[-2], first.shape[-1]

    def _choose_all(self, parts: Iterator[list[Tensor]], out: Tensor) -> None:
        """Writes the chosen channels of all parts into ``out`` (P, B, d), one behind the other."""
        first = 0
        for stages in parts:
            self._choose(stages, out[:, first : first + len(stages[0])])
            first += len(stages[0])

    def _choose(self, stages: list[Tensor], out: Tensor) -> None:
        """Writes the chosen channels, at the grid of the first stage, into ``out`` (P, B, d).

        Channels are chosen before anything is enlarged, and land where they are needed: the
        stack of all channels is never built.
        """
        grid = out.unflatten(0, self.grid)
        first, column = 0, 0
        for stage in stages:
            width, height_width = stage.shape[1], stage.shape[-2:]
            inside = (self.channels >= first) & (self.channels < first + width)
            chosen = (self.channels[inside] - first).to(stage.device)
            part = stage.permute(0, 2, 3, 1).flatten(0, 2).index_select(1, chosen)
            part = part.to(out.device, out.dtype).unflatten(0, (-1, *height_width))
            part = part.permute(1, 2, 0, 3)
            # Nearest neighbours, exactly, whatever the ratio of the grids.
            rows, columns = (
                torch.arange(large, device=out.device) * small // large
                for large, small in zip(self.grid, height_width, strict=True)
            )
            for y, row in enumerate(rows.tolist()):
                grid[y, :, :, column : column + len(chosen)] = part[row][columns]
            first, column = first + width, column + len(chosen)

    def _update(self, rows: Tensor) -> None:
        """Adds images to mean and sums of products, by Chan, Golub and LeVeque's update (1979).

        Deviations are taken from the part's own mean, and the difference of the means enters
        as one more row: no large sums are subtracted, so no digits are lost.

        Args:
            rows: (P, 1 + B, d), the features from row 1 on; row 0 is free. Overwritten.
        """
        features, images = rows[:, 1:], rows.shape[1] - 1
        mean = features.mean(1)
        features -= mean[:, None]
        if not self.count:
            self.mean, self._packed = mean, torch.bmm(features.mT, features)
        else:
            shift, total = mean - self.mean, self.count + images
            rows[:, 0] = shift * (self.count * images / total) ** 0.5
            self._packed.baddbmm_(rows.mT, rows)
            self.mean += shift * (images / total)
        self.count += images

    def _factor(self) -> None:
        """Sums of products, whole -> packed: above the diagonal as they are, below the factor."""
        self._diagonal = self._packed.diagonal(dim1=1, dim2=2).clone()
        for part in self._chunks(copies=4):
            products = self._packed[part]
            factor = torch.linalg.cholesky(self._regularised(products))
            self._packed[part] = factor + products.triu(1)

    def _unpack(self) -> None:
        """Packed -> whole sums of products, to go on learning."""
        for part in self._chunks(copies=3):
            self._packed[part] = self._products(part)

    def _products(self, part: slice) -> Tensor:
        upper = self._packed[part].triu(1)
        return upper + upper.mT + torch.diag_embed(self._diagonal[part])

    def _regularised(self, products: Tensor) -> Tensor:
        covariance = products / max(self.count - 1, 1)
        covariance.diagonal(dim1=1, dim2=2).add_(EPSILON)
        return covariance

    def _distances(self, features: Tensor) -> Tensor:
        """Mahalanobis distances (P, B) of features (P, B, d)."""
        distances = features.new_empty(features.shape[:2])
        for part in self._chunks(copies=1):
            deviations = (features[part] - self.mean[part, None]).mT
            # Of the packed matrices only the lower triangle, the factor, is read.
            white = torch.linalg.solve_triangular(self._packed[part], deviations, upper=False)
            distances[part] = torch.linalg.vector_norm(white, dim=1)
        return distances

    def covariance(self) -> Tensor:
        """The regularised covariances (P, d, d), for looking at; a copy of full size."""
        return self._regularised(self._products(slice(None)))

    def save(self, path: str | Path) -> Path:
        """Writes the fitted model and its encoder to one safetensors file."""
        self._check_fitted()
        about = {
            "encoder": self.encoder.name,
            "provenance": self.encoder.provenance,
            "n_features": self.n_features,
            "seed": self.seed,
            "count": self.count,
            "image_size": self.image_size,
            "grid": self.grid,
        }
        return FILE.write(path, about, self._tensors())

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", check: bool = True
    ) -> "PaDiM":
        """Reads what :meth:`save` wrote; nothing is computed and nothing unpickled.

        On a CPU the statistics stay mapped to the file, which must not be written into meanwhile.

        Args:
            path: The file.
            device: Device for the encoder.
            check: Compare the content with the digest written with it, at 1 to 2 GB a second:
                a tenth of a second for d = 100 at 224 pixels, three seconds for d = 550.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It holds something else, or is damaged.
        """
        with FILE.open(path) as file:
            about = file.about
            model = cls(load_encoder(about["encoder"]), about["n_features"], about["seed"])
            model.encoder.provenance = about["provenance"]
            model.count, model.image_size = about["count"], about["image_size"]
            model.grid = about["grid"]
            positions, d = model.grid[0] * model.grid[1], model.n_features
            model.mean = model._diagonal = torch.empty(positions, d, device="meta")
            model._packed = torch.empty(positions, d, d, device="meta")
            model._restore(file.tensors(model._tensors(), check), device)
        return model

    def _tensors(self) -> dict[str, Tensor]:
        own = {"mean": self.mean, "packed": self._packed, "diagonal": self._diagonal}
        state = single_precision(self.encoder.network)
        encoder = {f"{ENCODER}{name}": tensor for name, tensor in state.items()}
        return {**own, "channels": self.channels, **encoder}

    def _restore(self, tensors: dict[str, Tensor], device: str | torch.device) -> None:
        # The stored choice counts, whatever today's torch would draw from the seed.
        self.channels = tensors["channels"]
        total = sum(self.encoder.stage_channels[:STAGES])
        if not torch.equal(self.channels, self.channels.clamp(0, total - 1).unique()):
            raise ValueError(f"its channels are not {self.n_features} of {total}, ascending")
        self.encoder.network.load_state_dict(
            {k.removeprefix(ENCODER): v for k, v in tensors.items() if k.startswith(ENCODER)}
        )
        self.encoder.to(device)
        self.mean, self._packed, self._diagonal = (
            tensors[name].to(self._home) for name in ("mean", "packed", "diagonal")
        )

    @property
    def _home(self) -> torch.device:
        device = next(self.encoder.parameters()).device
        return torch.device("cpu") if device.type == "mps" else device

    def _empty(self, images: int) -> Tensor:
        positions = self.grid[0] * self.grid[1]
        return torch.empty(positions, images, self.n_features, device=self._home)

    def _budget(self) -> int:
        return self.memory or free_memory(self._home) // 4

    def _check_fitted(self) -> None:
        if self.count < 2:
            raise ValueError("nothing has been fitted yet: call fit first")

    def _check_memory(self) -> None:
        positions = self.grid[0] * self.grid[1]
        needed, free = 4 * positions * self.n_features**2, free_memory(self._home)
        if needed > free:
            raise MemoryError(
                f"the statistics of {positions:,} positions and {self.n_features} features take "
                f"{needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: choose fewer n_features, "
                "or smaller images"
            )

    def _images_at_once(self) -> int:
        """Images whose features are held at once, within the budget and of use.

        An update moves each statistic twice and computes on it once for each image; beyond
        some d / 4 images the moving no longer counts.
        """
        positions = self.grid[0] * self.grid[1]
        fitting = self._budget() // (4 * positions * self.n_features)
        return int(min(max(fitting, 1), max(64, self.n_features // 4)))

    def _chunks(self, copies: int) -> Iterator[slice]:
        """Slices of the positions, so that ``copies`` of their d x d matrices fit the budget."""
        positions = self.grid[0] * self.grid[1]
        most = CHUNK_CPU if self._home.type == "cpu" else CHUNK
        fitting = min(self._budget() // copies, most) // (4 * self.n_features**2)
        size = int(max(fitting, 1))
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
