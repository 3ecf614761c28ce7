"""Finding images, and the masks that belong to them, in folders."""

from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def images_in(folder: Path, deep: bool = False) -> list[Path]:
    """The images of a folder (with ``deep``: and of those in it) in the order of their paths."""
    found = folder.rglob("*") if deep else folder.glob("*")
    return sorted(
        path
        for path in found
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def masks_in(folder: Path) -> dict[str, Path]:
    """The masks of a folder by the name of their image: ``000_mask.png`` and ``000.png`` alike."""
    return {path.stem.removesuffix("_mask"): path for path in images_in(folder)}


def wanted(
    categories: str | Sequence[str] | None, present: Sequence[str], place: str | Path
) -> list[str]:
    """The categories asked for, by default all that are there.

    Raises:
        ValueError: One is not there, or none is asked for.
    """
    if categories is None:
        return list(present)
    asked = [categories] if isinstance(categories, str) else list(categories)
    unknown = [name for name in asked if name not in present]
    if unknown or not asked:
        raise ValueError(
            f"categories: {', '.join(unknown) or 'none'} not among those of {place}: "
            f"{', '.join(present)}"
        )
    return asked
