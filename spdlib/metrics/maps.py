"""Anomaly maps on disk, of any model, and the masks that belong to them.

Maps are ``.tiff`` (float, one channel, as MVTec's own evaluation expects), ``.npy`` or ``.png``
(grey, 8 or 16 bits). A map and its mask lie at like places below two folders, once the layout's
own words are left out: ``screw/test/scratch/000.tiff`` and
``screw/ground_truth/scratch/000_mask.png`` (MVTec AD), ``pcb1/Anomaly/000.npy`` and
``pcb1/Data/Masks/Anomaly/000.png`` (VisA), ``anomaly/dent/7.png`` and ``masks/dent/7.png``,
``000.npy`` and ``000.png``. Maps in a folder ``good`` or ``normal`` need no mask.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from spdlib.datasets.files import is_image, plain, walk
from spdlib.datasets.samples import read_mask
from spdlib.metrics.counts import Array
from spdlib.paths import replacing
from spdlib.progress import track

ENDINGS = (".tiff", ".tif", ".npy", ".png")
NORMAL = {"good", "normal", "ok"}
MASKS = {"ground_truth", "masks"}
# Words of the layouts that tell nothing apart; what comes before the first is the category.
WORDS = {"test", "data", "images", "anomaly", "bad", *MASKS}


def find(maps: str | Path, masks: str | Path) -> pd.DataFrame:
    """The maps below a folder with the masks below another, in the order of their paths.

    Returns:
        A row a map: ``path``; ``mask``, its file, None for a normal image; ``category``, the
        object; ``anomalous``, whether its folder says so, None if only the mask tells.

    Raises:
        FileNotFoundError: A folder is not there.
        ValueError: There are no maps, or some have no mask though they are not called normal.
    """
    maps, masks = Path(maps), Path(masks)
    for folder in (maps, masks):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder")
    found = [path for path in walk(maps) if path.suffix.lower() in ENDINGS]
    if not found:
        raise ValueError(f"{maps} holds no maps ({', '.join(ENDINGS)})")
    by_place = {_place(path, masks): path for path in _mask_files(masks)}
    depth = min((d for path in found if (d := _depth(path, maps)) is not None), default=None)
    rows = [(path, by_place.get(_place(path, maps)), *_kind(path, maps, depth)) for path in found]
    lost = [path for path, mask, _, anomalous in rows if mask is None and anomalous is not False]
    hint = "a normal image lies in a folder `good`, or has a black mask"
    _refuse(f"{p}: there is no mask {'/'.join(_place(p, maps))} in {masks}; {hint}" for p in lost)
    return pd.DataFrame(rows, columns=["path", "mask", "category", "anomalous"], dtype=object)


def scan(pairs: pd.DataFrame, resize: bool = False) -> pd.DataFrame:
    """Reads all once, one after the other, so that what is wrong is known before any work.

    Args:
        pairs: Files of maps and masks, as :func:`find` returns them.
        resize: Whether a map may be of another size than its mask.

    Returns:
        The rows, with the map's ``score`` (its maximum), ``low`` (its minimum) and ``precision``,
        the image's ``label``, 0 or 1, ``height`` and ``width`` that the map is measured at, and
        whether ``some`` or the ``whole`` of the mask is set.

    Raises:
        ValueError: Files do not decode, hold NaN or more than one channel, differ in size from
            their masks, or a category lacks anomalous or normal pixels; names them.
    """
    seen, problems = [], []
    for pair in track(list(pairs.itertuples()), "reading", "maps"):
        try:
            seen.append(_look(pair, resize))
        except ValueError as error:
            problems.append(str(error))
    _refuse(problems)
    found = pairs.join(pd.DataFrame(seen, pairs.index))
    for category, rows in found.groupby("category", sort=False):
        masked = rows["mask"].notna()
        if resize and masked.any():  # without masks: the size that most masks have
            usual = rows.loc[masked, ["height", "width"]].mode().iloc[0]
            found.loc[rows.index[~masked], ["height", "width"]] = usual.to_numpy()
        if not rows.some.any():
            problems.append(f"{category}: no mask holds an anomaly")
        if rows.whole.all():
            problems.append(f"{category}: no mask leaves anything normal")
    _refuse(problems)
    return found


def read(rows: pd.DataFrame) -> Iterator[tuple[Array, Array]]:
    """Maps and masks (bool) of what :func:`scan` has seen, pair by pair, of one dtype.

    Maps of another size are brought to that of their masks, bilinearly.
    """
    dtype = np.result_type(*rows.precision)
    for row in rows.itertuples():
        values = read_map(row.path)
        if values.shape != (row.height, row.width):
            image = Image.fromarray(values.astype(np.float32))
            values = np.asarray(image.resize((row.width, row.height), Image.Resampling.BILINEAR))
        yield values.astype(dtype), _truth(row, values)


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


def _refuse(problems: Iterable[str], shown: int = 10) -> None:
    """Raises a ValueError that names the first problems, if there are any."""
    problems = list(problems)
    if problems:
        more = [f"... and {len(problems) - shown} more"] if len(problems) > shown else []
        raise ValueError("\n".join([*problems[:shown], *more]))


def _look(pair: Any, resize: bool) -> dict[str, Any]:
    values = read_map(pair.path)
    truth = _truth(pair, values)
    if truth.shape != values.shape and not resize:
        sizes = ["{} x {}".format(*shape[::-1]) for shape in (values.shape, truth.shape)]
        hint = "--resize brings maps to the size of their masks"
        raise ValueError(f"{pair.path}: the map is {sizes[0]}, its mask {sizes[1]}; {hint}")
    return {
        "score": values.max(), "low": values.min(), "precision": values.dtype,
        "label": int(truth.any() or bool(pair.anomalous)), "height": truth.shape[0],
        "width": truth.shape[1], "some": truth.any(), "whole": truth.all(),
    }  # fmt: skip


def _truth(pair: Any, values: Array) -> Array:
    return read_mask(pair.mask).numpy() if pair.mask else np.zeros(values.shape, bool)


def _mask_files(folder: Path) -> list[Path]:
    """The images below a folder; of a whole data set, those among its masks."""
    files = [path for path in walk(folder) if is_image(path)]
    return [path for path in files if MASKS & set(_parents(path, folder))] or files


def _parents(path: Path, root: Path) -> list[str]:
    return [part.lower() for part in path.relative_to(root).parts[:-1]]


def _place(path: Path, root: Path) -> tuple[str, ...]:
    parents = (part for part in path.relative_to(root).parts[:-1] if part.lower() not in WORDS)
    return (*parents, plain(path.stem))


def _depth(path: Path, root: Path) -> int | None:
    """Number of folders before the first that is a word of the layouts."""
    known = (i for i, part in enumerate(_parents(path, root)) if part in WORDS | NORMAL)
    return next(known, None)


def _kind(path: Path, root: Path, depth: int | None) -> tuple[str, bool | None]:
    """A map's category, and whether its folder says that it is anomalous."""
    category = "/".join(path.relative_to(root).parts[:-1][:depth])
    if not category:
        names = [name for name in root.resolve().parts if name.lower() not in WORDS | NORMAL]
        category = names[-1]
    return category, None if depth is None else not NORMAL & set(_parents(path, root)[depth:])
