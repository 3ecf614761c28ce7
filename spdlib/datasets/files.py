"""Finding images in folders, and telling by name what is none: hidden files, masks, defects."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from PIL import Image

Categories: TypeAlias = str | Sequence[str] | None  # names of categories; None: all

LAYOUTS = """\
  VisA:      split_csv/ beside the objects, or 1cls/<object>/train/good/
  MVTec AD:  <category>/train/good/, test/<defect>/, ground_truth/<defect>/
  your own:  normal/, anomaly/, masks/ (optional), or these in a folder per category
  a tree:    images of good parts only, in folders of any names; or train/, val/ with such"""
# Formats that Pillow knows, but that are no plain raster images, or need another program.
NO_RASTER = ("BUFR", "CUR", "EPS", "GBR", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF")
Image.init()
SUFFIXES = tuple(
    suffix for suffix, kind in Image.registered_extensions().items()
    if kind in Image.OPEN and kind not in NO_RASTER
)  # fmt: skip
PAPERS = (".txt", ".md", ".csv", ".pdf", ".html", ".db", ".ini")  # nobody takes them for images
LITTER = "__MACOSX"
DOUBT = "doubtful: "  # begins what may be meant so
MASK_WORDS = r"masks?|gt|ground[ _-]?truths?|labels?|seg(?:mentations?)?|annotations?"
DEFECT_WORDS = (
    r"anomal\w*|abnormal\w*|defe[ck]t\w*|def|faults?|faulty|bad|ng|nok|ko|nio|not[ _-]?(?:ok|good)|"
    r"broken|damaged?|reject\w*|scrap|fail\w*|flaws?|cracks?|cracked|scratch\w*|positives?|"
    r"fehler\w*|schlecht\w*|ausschuss"
)
_ODD = re.compile(rf"(?<![a-z])(?:{MASK_WORDS}|{DEFECT_WORDS})(?![a-z])", re.IGNORECASE)
_GOOD = re.compile(r"(?<![a-z])(?:good|normal|ok|io|negatives?)(?![a-z])", re.IGNORECASE)
_MASKS = re.compile(MASK_WORDS, re.IGNORECASE)
_AFFIX = re.compile(rf"^(?:{MASK_WORDS})[ ._-]+|[ ._-]+(?:{MASK_WORDS})$", re.IGNORECASE)


def walk(root: Path, seen: set[Path] | None = None) -> list[Path]:
    """All visible files under a folder, sorted; a folder that is linked to is read once.

    Args:
        root: The folder.
        seen: Folders that are not entered; by default, so that links do not lead back up, the
            folder itself and those that hold it.

    Raises:
        OSError: A folder cannot be read.
    """
    seen = {root.resolve(), *root.resolve().parents} if seen is None else seen
    files, inner = [], []
    for path in filter(is_visible, sorted(root.iterdir())):
        if not path.is_dir():
            files.append(path)
        elif (real := path.resolve()) not in seen:
            seen.add(real)
            inner.append(path)
    for folder in inner:
        files += walk(folder, seen)
    return sorted(files)


def is_visible(path: str | Path) -> bool:
    """Whether a file or folder is neither hidden nor what macOS puts into archives."""
    name = os.path.basename(path)
    return not name.startswith(".") and name != LITTER


def folders(root: Path) -> list[Path]:
    """The visible folders in a folder."""
    return sorted(path for path in root.iterdir() if is_visible(path) and path.is_dir())


def is_image(path: Path) -> bool:
    """Whether Pillow reads files of this ending."""
    return path.suffix.lower() in SUFFIXES


def kinds(paths: Iterable[Path]) -> str:
    """Endings of files, the most frequent first, e.g. ``".heic (3), .npy"``."""
    counts = Counter(path.suffix.lower() or path.name for path in paths).most_common(5)
    return ", ".join(name if n == 1 else f"{name} ({n})" for name, n in counts)


def left_out(root: Path, paths: Collection[Path]) -> list[str]:
    """Says which files under a folder are no samples, in a line or two."""
    images = [path for path in paths if is_image(path)]
    others = [path for path in paths if not (is_image(path) or path.suffix.lower() in PAPERS)]
    said = []
    if images:
        where = f"lie in none of the layout's folders, e.g. {images[0]}"
        said.append(f"{DOUBT}{root}: {len(images)} images {where}")
    if others:
        text = f"files are not read as images, they end in {kinds(others)}"
        said.append(f"{DOUBT}{root}: {len(others)} {text}")
    return said


def wanted(categories: Categories, present: Iterable[str], place: str | Path) -> list[str]:
    """The categories asked for, by default all that are there.

    Raises:
        ValueError: One is not there, or none is asked for.
    """
    present = list(present)
    if categories is None:
        return present
    asked = [categories] if isinstance(categories, str) else list(categories)
    unknown = [name for name in asked if name not in present]
    if unknown or not asked:
        raise ValueError(
            f"categories: {', '.join(unknown) or 'none'} not among those of {place}: "
            f"{', '.join(present[:20])}{' ...' if len(present) > 20 else ''}"
        )
    return list(dict.fromkeys(asked))


def refuse(what: Path, why: str) -> NoReturn:
    """Raises a ValueError that names a file or folder, and the layouts that are known."""
    raise ValueError(f"{what} {why}. Known layouts:\n{LAYOUTS}")


def refuse_odd(images: Iterable[Path], root: Path) -> None:
    """Refuses images that the names of their folders make out to be defects or masks.

    Raises:
        ValueError: A folder has such a name, or lies beside one for good parts.
    """
    inner = {path.parent.relative_to(root) for path in images}
    beside = defaultdict(list)
    for folder in sorted({above for path in inner for above in (path, *path.parents)} - {Path()}):
        if is_odd(folder.name):
            refuse(root / folder, "is named like defects or masks")
        beside[folder.parent].append(folder)
    for alike in beside.values():
        good = [folder.name for folder in alike if is_good(folder.name)]
        others = [folder for folder in alike if folder.name not in good]
        if good and others:
            refuse(root / others[0], f"lies beside {good[0]}/, so it may hold defects")


def refuse_masks_beside(images: Collection[Path]) -> None:
    """Refuses images that are named as masks of images in the same folder.

    Raises:
        ValueError: ``7_mask.png`` lies beside ``7.png``.
    """
    named = {(path.parent, name): path for path in images for name in (path.stem, path.name)}
    for path in images:
        bare = plain(path.stem)
        picture = named.get((path.parent, bare))
        if picture and bare != path.stem:
            why = f"is named as a mask and lies beside {picture.name}: masks need their own folder"
            refuse(path, why)


def is_odd(folder: str) -> bool:
    """Whether a folder's name speaks of defects or masks.

    >>> [is_odd(name) for name in ("BadParts", "test_ng", "Ground truth", "badge", "king")]
    [True, True, True, False, False]
    """
    return bool(_ODD.search(_spaced(folder)))


def is_good(folder: str) -> bool:
    """Whether a folder's name speaks of good parts."""
    return bool(_GOOD.search(_spaced(folder)))


def is_masks(folder: str) -> bool:
    """Whether a folder's name means masks and nothing else."""
    return bool(_MASKS.fullmatch(folder))


def plain(stem: str) -> str:
    """A mask's name without what says that it is one: ``7_mask`` and ``gt-7`` are ``7``."""
    return _AFFIX.sub("", stem, count=1)


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
