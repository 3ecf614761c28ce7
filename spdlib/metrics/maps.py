"""Anomaly maps on disk, of any model, and the masks that belong to them.

Maps are ``.tiff`` (float, one channel, as MVTec's own evaluation expects), ``.npy`` or ``.png``
(grey, 8 or 16 bits). A map and its mask lie at like places below two folders, once the layout's
own words are left out: ``screw/test/scratch/000.tiff`` and
``screw/ground_truth/scratch/000_mask.png`` (MVTec AD), ``pcb1/Anomaly/000.npy`` and
``pcb1/Data/Masks/Anomaly/000.png`` (VisA), ``anomaly/dent/7.png`` and ``masks/dent/7.png``,
``000.npy`` and ``000.png``. Maps in a folder ``good`` or ``normal`` need no mask.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from spdlib.datasets.files import images_in
from spdlib.datasets.samples import read_mask
from spdlib.metrics.counts import Array
from spdlib.paths import replacing
from spdlib.progress import track

ENDINGS = (".tiff", ".tif", ".npy", ".png")
NORMAL = {"good", "normal", "ok"}
MASKS = {"ground_truth", "masks"}
# Words of the layouts that tell nothing apart; what comes before the first is the category.
WORDS = {"test", "data", "images", "anomaly", "bad", *MASKS}


class Pair(NamedTuple):
    """A map and its mask.

    Attributes:
        path: The map's file.
        mask: The mask's file; None for a normal image.
        category: The object.
        anomalous: Whether its folder says that the image is; None if only the mask tells.
    """

    path: Path
    mask: Path | None
    category: str
    anomalous: bool | None


class Seen(NamedTuple):
    """What a first reading of a pair tells.

    Attributes:
        score: The map's maximum, which is the image's score.
        low: Its minimum.
        label: Whether the image is anomalous, 0 or 1.
        shape: Of the mask, (H, W); None without a mask.
        dtype: Of the map.
        marked: Whether some, and whether all of the mask is set.
    """

    score: float
    low: float
    label: int
    shape: tuple[int, ...] | None
    dtype: np.dtype
    marked: tuple[bool, bool]


def find(maps: str | Path, masks: str | Path) -> list[Pair]:
    """The maps below a folder with the masks below another, in the order of their paths.

    Raises:
        FileNotFoundError: A folder is not there.
        ValueError: There are no maps, or some have no mask though they are not called normal.
    """
    maps, masks = Path(maps), Path(masks)
    for folder in (maps, masks):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder")
    found = sorted(path for path in maps.rglob("*") if path.suffix.lower() in ENDINGS)
    if not found:
        raise ValueError(f"{maps} holds no maps ({', '.join(ENDINGS)})")
    inside = [path.relative_to(maps) for path in found]
    depths = [depth for path in inside if (depth := _depth(path)) is not None]
    by_place = {_place(path.relative_to(masks)): path for path in _mask_files(masks)}
    pairs = [
        Pair(path, by_place.get(_place(place)), *_kind(place, min(depths, default=None), maps))
        for path, place in zip(found, inside, strict=True)
    ]
    refuse(
        f"{pair.path}: there is no mask {'/'.join(_place(place))} in {masks}; a normal image lies "
        "in a folder `good`, or has a black mask"
        for pair, place in zip(pairs, inside, strict=True)
        if pair.mask is None and pair.anomalous is not False
    )
    return pairs


def scan(pairs: Sequence[Pair], resize: bool = False) -> "Readings":
    """Reads all once, one after the other, so that what is wrong is known before any work.

    Args:
        pairs: As :func:`find` makes them.
        resize: Whether a map may be of another size than its mask.

    Raises:
        ValueError: Files do not decode, hold NaN or more than one channel, differ in size from
            their masks, or a category lacks anomalous or normal pixels; names them.
    """
    seen, problems = [], []
    for pair in track(pairs, "reading", "maps"):
        try:
            seen.append(_look(pair, resize))
        except ValueError as error:
            problems.append(str(error))
    refuse(problems)
    readings = Readings(pairs, seen, resize)
    for category in readings.categories:
        some, whole = zip(*(s.marked for s in readings.of(category).seen), strict=True)
        if not any(some):
            problems.append(f"{category}: no mask holds an anomaly")
        if all(whole):
            problems.append(f"{category}: no mask leaves anything normal")
    refuse(problems)
    return readings


@dataclass
class Readings:
    """Pairs that are read from disk each time they are gone through: map, mask (bool).

    Attributes:
        pairs: What is read.
        seen: As :func:`scan` returns it.
        resize: Whether maps are brought to the size of their masks, bilinearly; those of normal
            images without a mask to the size that most masks have.
    """

    pairs: Sequence[Pair]
    seen: Sequence[Seen]
    resize: bool = False

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        dtype = np.result_type(*(s.dtype for s in self.seen))
        (usual, _), *_ = Counter(s.shape for s in self.seen if s.shape).most_common(1)
        for pair, s in zip(self.pairs, self.seen, strict=True):
            values = read_map(pair.path)
            if self.resize and values.shape != (s.shape or usual):
                values = _resized(values, s.shape or usual)
            truth = read_mask(pair.mask).numpy() if pair.mask else np.zeros(values.shape, bool)
            yield values.astype(dtype), truth

    @property
    def categories(self) -> list[str]:
        """Categories, in the order of the pairs."""
        return list(dict.fromkeys(pair.category for pair in self.pairs))

    def of(self, category: str) -> "Readings":
        """Those of one category."""
        chosen = [i for i, pair in enumerate(self.pairs) if pair.category == category]
        pairs, seen = ([part[i] for i in chosen] for part in (self.pairs, self.seen))
        return Readings(pairs, seen, self.resize)


def read_map(path: str | Path) -> Array:
    """A map (H, W), float32, or float64 where the file holds such numbers.

    Raises:
        ValueError: It does not decode, or is no single channel of finite numbers; names it.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                values = np.array(image.convert("RGB") if image.mode == "P" else image)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ValueError(f"{path}: the map does not decode ({error})") from None
    shape, values = values.shape, np.squeeze(values) if values.ndim > 2 else values
    if values.ndim != 2 or values.dtype.kind not in "fiub" or not values.size:
        raise ValueError(f"{path}: one number a pixel is needed, not {shape} of {values.dtype}")
    exact = values.dtype.itemsize <= (2 if values.dtype.kind in "iu" else 4)
    values = values.astype(np.float32 if exact else np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: {(~np.isfinite(values)).sum():,} pixels are NaN or infinite")
    return values


def write_map(path: str | Path, values: Array) -> None:
    """Writes a map (float32) as .npy or .tiff, or a mask (uint8) as .png, by the path's ending."""
    ending = Path(path).suffix.lower()
    with replacing(path) as temporary, temporary.open("wb") as file:
        if ending == ".npy":
            np.save(file, values)
        else:
            Image.fromarray(values).save(file, Image.registered_extensions()[ending])


def refuse(problems: Any, shown: int = 10) -> None:
    """Raises a ValueError that names the first problems, if there are any."""
    problems = list(problems)
    if problems:
        more = [f"... and {len(problems) - shown} more"] if len(problems) > shown else []
        raise ValueError("\n".join([*problems[:shown], *more]))


def _resized(values: Array, shape: tuple[int, ...]) -> Array:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))


def _look(pair: Pair, resize: bool) -> Seen:
    values = read_map(pair.path)
    truth = read_mask(pair.mask).numpy() if pair.mask else np.zeros(values.shape, bool)
    if truth.shape != values.shape and not resize:
        sizes = ["{} x {}".format(*shape[::-1]) for shape in (values.shape, truth.shape)]
        raise ValueError(
            f"{pair.path}: the map is {sizes[0]}, its mask {sizes[1]}; --resize brings maps to "
            "the size of their masks"
        )
    label = int(truth.any() or bool(pair.anomalous))
    shape = truth.shape if pair.mask else None
    ends = float(values.max()), float(values.min())
    return Seen(*ends, label, shape, values.dtype, (bool(truth.any()), bool(truth.all())))


def _mask_files(folder: Path) -> list[Path]:
    """The images below a folder; of a whole data set, those among its masks."""
    files = images_in(folder, deep=True)
    marked = [path for path in files if MASKS & set(_parents(path.relative_to(folder)))]
    return marked or files


def _parents(path: Path) -> list[str]:
    return [part.lower() for part in path.parts[:-1]]


def _place(path: Path) -> tuple[str, ...]:
    parents = (part for part in path.parts[:-1] if part.lower() not in WORDS)
    return (*parents, path.stem.removesuffix("_mask"))


def _depth(path: Path) -> int | None:
    """How many folders come before the first that is a word of the layouts."""
    parents = _parents(path)
    return next((i for i, part in enumerate(parents) if part in WORDS | NORMAL), None)


def _kind(place: Path, depth: int | None, root: Path) -> tuple[str, bool | None]:
    """A map's category, and whether its folder says that it is anomalous."""
    category = "/".join(place.parts[:-1][:depth])
    if not category:
        names = [name for name in root.resolve().parts if name.lower() not in WORDS | NORMAL]
        category = names[-1]
    anomalous = None if depth is None else not NORMAL & set(_parents(place)[depth:])
    return category, anomalous
