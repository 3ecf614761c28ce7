"""PatchCore: a memory of patches of normal images (Roth et al., CVPR 2022).

Features of the encoder's second and third stages, each averaged over 3 x 3 cells, the third
enlarged to the grid of the second; of all patches a coreset is kept, chosen greedily so that
the furthest patch is as near as can be. A patch's distance to the nearest kept one, upsampled
and smoothed, is the anomaly map.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from spdlib.encoders import Encoder
from spdlib.features import Batch, checked, evaluating, stage_maps
from spdlib.memory import free_memory
from spdlib.padim import smoothing_matrix

SHARE = 0.01  # of the patches that is kept: the paper's PatchCore-1%
PROJECTED = 128  # dimensions in which the coreset is chosen, as in the authors' code
NEIGHBOURS = 9  # kept patches that weigh an image's score, as in the authors' code
CHUNK = 64 << 20  # bytes of distances at once


class PatchCore:
    """A one-class detector and segmenter on top of any encoder.

    Args:
        encoder: Source of features; the work is done on its device.
        share: Share of the patches of normal images that is kept, in (0, 1].
        seed: Seed of the random projection and of the first patch kept.

    Batches are as for :class:`spdlib.padim.PaDiM`. The patches of all normal images are held
    while the coreset is chosen: 4 bytes for each channel of both stages and each cell of the
    second.

    Attributes:
        bank: The patches kept (M, D).

    >>> from spdlib.encoders import load_encoder
    >>> images = torch.rand(4, 3, 64, 64)
    >>> maps, scores = PatchCore(load_encoder("resnet18")).fit([images]).score([images])
    >>> maps.shape, scores.shape
    (torch.Size([4, 64, 64]), torch.Size([4]))
    """

    def __init__(self, encoder: Encoder, share: float = SHARE, seed: int = 0):
        if not 0 < share <= 1:
            raise ValueError(f"share: of the patches, in (0, 1], not {share}")
        self.encoder, self.share, self.seed = encoder, share, seed
        self.image_size: tuple[int, int] = (0, 0)
        self.grid: tuple[int, int] = (0, 0)
        self.bank = torch.empty(0)

    def fit(self, batches: Iterable[Batch]) -> "PatchCore":
        """Learns the normal images; forgets what it learned before.

        Raises:
            ValueError: There are none, they differ in size, or they are not RGB floats in [0, 1].
            MemoryError: Their patches do not fit into what is free.
        """
        self.image_size = (0, 0)
        patches, held = [], 0
        for part in self._patches(batches):
            patches.append(part.flatten(0, 1))
            held += part.nbytes
            if held > free_memory(part.device):  # joined, they need as much again
                raise MemoryError(
                    f"the patches of {sum(map(len, patches)):,} cells take {held / 1e9:.1f} GB, "
                    "too much to choose among: learn fewer images, or smaller ones"
                )
        if not patches:
            raise ValueError("batches: there are none")
        everything = torch.cat(patches)
        self.bank = everything[coreset(everything, self.share, self.seed)]
        return self

    def score(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Anomaly maps (N, H, W) and image scores (N,), on the CPU.

        The image's score is the largest distance of its patches, less where the kept patch
        nearest to it lies apart from its own neighbours (equation 7 of the paper).

        Raises:
            ValueError: Nothing has been fitted, there are no images, they differ in size from
                those fitted, or they are not RGB floats in [0, 1].
        """
        if not len(self.bank):
            raise ValueError("nothing has been fitted yet: call fit first")
        pairs = [self._scored(part) for part in self._patches(batches)]
        if not pairs:
            raise ValueError("batches: there are none")
        maps, scores = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return maps, scores

    def _patches(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Patches (B, P, D) of a few images at a time."""
        with evaluating(self.encoder):
            for batch in batches:
                images = checked(batch, self.image_size)
                self.image_size = images.shape[-2], images.shape[-1]
                for _, *maps in stage_maps(self.encoder, images, 3):
                    near, far = (F.avg_pool2d(stage.float(), 3, 1, 1) for stage in maps)
                    self.grid = near.shape[-2], near.shape[-1]
                    far = F.interpolate(far, self.grid, mode="bilinear")
                    yield torch.cat([near, far], 1).flatten(2).mT.contiguous()

    def _scored(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        nearest = _nearest(patches.flatten(0, 1), self.bank).view(len(patches), -1)
        distances = (patches - self.bank[nearest]).norm(dim=2)
        score, place = distances.max(1)
        furthest = patches[torch.arange(len(patches)), place]
        known = self.bank[nearest.gather(1, place[:, None])[:, 0]]
        count = min(NEIGHBOURS, len(self.bank))
        around = torch.cdist(known, self.bank).topk(count, largest=False).indices
        apart = (furthest[:, None] - self.bank[around]).norm(dim=2)
        if count > 1:  # a single kept patch has no neighbours to be compared with
            score = score * (1 - (score - apart.logsumexp(1)).exp())
        down, across = map(smoothing_matrix, self.grid, self.image_size)
        heat = distances.view(-1, *self.grid).cpu()
        return down @ heat @ across.T, score.cpu()


def coreset(points: Tensor, share: float = SHARE, seed: int = 0) -> Tensor:
    """Numbers of points kept by the greedy choice: each time the one furthest from those kept.

    Distances are those of a random projection to 128 dimensions, where there are more.

    Args:
        points: (N, D).
        share: Share that is kept, in (0, 1]; one point at least.
        seed: Seed of the projection and of the first point.

    >>> coreset(torch.tensor([[0.0], [0.1], [5.0], [9.0]]), 0.5).sort().values.tolist()
    [0, 3]
    """
    generator = torch.Generator().manual_seed(seed)
    kept = torch.empty(max(1, round(share * len(points))), dtype=torch.long)
    place = int(torch.randint(len(points), (1,), generator=generator))
    if points.shape[1] > PROJECTED:
        projection = torch.randn(points.shape[1], PROJECTED, generator=generator)
        points = points @ projection.to(points.device)
    squares = points.square().sum(1)
    gap = torch.full_like(squares, torch.inf)
    for number in range(len(kept)):
        kept[number] = place
        away = torch.addmv(squares + squares[place], points, points[place], alpha=-2)
        gap = torch.minimum(gap, away)
        gap[place] = -torch.inf  # rounding must not choose it twice
        place = int(gap.argmax())
    return kept


def _nearest(points: Tensor, bank: Tensor) -> Tensor:
    """Number (N,) of the nearest of the bank, for some points at a time."""
    parts = points.split(max(1, CHUNK // (4 * len(bank))))
    return torch.cat([torch.cdist(part, bank).argmin(1) for part in parts])
