"""The values that become black and white in a table's deep images, the same in a category."""

from contextlib import suppress
from pathlib import Path

import pandas as pd

from spdlib.datasets import reading
from spdlib.datasets.files import DOUBT

SHALLOW = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif", ".webp", ".avif")
LOOKED_AT = 200  # images of a category from which the depth is taken
AT_ONCE = 64  # megapixels in memory


def with_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the column ``levels`` where a table has images of more than 8 bits, and says so.

    Only headers are read, and of deep images the pixels of up to 200 a category.
    """
    deep = table.path[[_is_deep(path) for path in table.path]]
    if deep.empty:
        return table
    table["levels"] = None
    for category, paths in deep.groupby(table.category, sort=False):
        low, high = _range(list(paths))
        black, white = reading.fitting_levels((low, high))
        table.loc[paths.index, "levels"] = pd.Series([(black, white)] * len(paths), paths.index)
        text = f"{category}: {len(paths)} images of more than 8 bits, values {low:g} to {high:g}: "
        text += f"{black:g} is read as black, {white:g} as white"
        if others := int((table.category == category).sum()) - len(paths):
            text += f"; {others} others have 8 bits, are they as bright?"
        table.attrs["notes"].append(DOUBT + text)
    return table


def _is_deep(path: str) -> bool:
    if Path(path).suffix.lower() not in SHALLOW:
        with suppress(ValueError), reading.opened(path) as image:
            return reading.is_deep(image)
    return False


def _range(paths: list[str]) -> reading.Levels:
    """The lowest and highest value of some of the images, spread evenly."""
    some = paths[:: max(1, len(paths) // LOOKED_AT)]
    with reading.threads(some, AT_ONCE) as pool:
        ranges = [values for values in pool.map(_range_of, some) if values] or [(0.0, 0.0)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _range_of(path: str) -> reading.Levels | None:
    with suppress(ValueError), reading.opened(path) as image:  # check names what does not decode
        return reading.value_range(reading.decode(image))
    return None
