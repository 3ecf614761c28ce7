"""The values that become black and white in a table's deep images, the same in a category."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from spdlib.datasets.reading import (
    Levels,
    decode,
    fitting_levels,
    is_deep,
    opened,
    threads,
    value_range,
)  # fmt: skip

SHALLOW = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif", ".webp", ".avif")
PNG = b"\x89PNG\r\n\x1a\n"  # so a PNG begins; its 25th byte is the depth
LOOKED_AT = 200  # images of a category from which the depth is taken
AT_ONCE = 64  # megapixels in memory


def with_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the column ``levels`` where a table has images of more than 8 bits, and says so.

    Only headers are read, and of deep images the pixels of up to 200 a category.
    """
    deep = np.array([_is_deep(path) for path in table.path], bool)
    if not deep.any():
        return table
    levels = pd.Series([None] * len(table), dtype=object)
    doubts = list(table.attrs.get("doubts", []))
    for category, rows in table[deep].groupby("category", sort=False):
        low, high = _range(list(rows.path))
        fitting = fitting_levels((low, high))
        levels[rows.index] = pd.Series([fitting] * len(rows), rows.index, dtype=object)
        black, white = fitting
        text = f"{category}: {len(rows)} images of more than 8 bits, values {low:g} to {high:g}: "
        text += f"{black:g} is read as black, {white:g} as white"
        if others := int((table.category == category).sum()) - len(rows):
            text += f"; {others} others have 8 bits, are they as bright?"
        doubts.append(text)
    table["levels"] = levels
    table.attrs["doubts"] = doubts
    return table


def _is_deep(path: str) -> bool:
    if Path(path).suffix.lower() in SHALLOW:
        return False
    with suppress(OSError, ValueError):
        with open(path, "rb") as file:
            start = file.read(25)
        if start.startswith(PNG) and len(start) == 25:
            return start[24] > 8
        with opened(path) as image:
            return is_deep(image)
    return False


def _range(paths: list[str]) -> Levels:
    """The lowest and highest value of some of the images, spread evenly."""
    some = paths[:: max(1, len(paths) // LOOKED_AT)]
    with threads(some, AT_ONCE) as pool:
        ranges = [values for values in pool.map(_range_of, some) if values] or [(0.0, 0.0)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _range_of(path: str) -> Levels | None:
    with suppress(ValueError), opened(path) as image:  # check names what does not decode
        return value_range(decode(image))
    return None
