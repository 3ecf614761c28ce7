"""Images in folders, and by name: what is none (hidden files, masks, defects), and whose mask."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NoReturn, TypeAlias

from PIL import Image

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
Categories: TypeAlias = str | Sequence[str] | None  # names of categories; None: all
Folder = tuple[str, ...]
# How names are compared: folders left out, with or without capitals, with the ending or not;
# then the folder and the name.
Key = tuple[int | None, Callable[[str], str], bool, str, str]
DEPTHS = (0, 1, None)  # a folder from the category on, one for the type of defect, none
FOLDS: tuple[Callable[[str], str], ...] = (str, str.casefold)


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


def left_out(root: Path, paths: Collection[Path]) -> Iterator[str]:
    """Says which files under a folder are no samples, in a line or two."""
    images = [path for path in paths if is_image(path)]
    others = [path for path in paths if not (is_image(path) or path.suffix.lower() in PAPERS)]
    if images:
        where = f"lie in none of the layout's folders, e.g. {images[0]}"
        yield f"{DOUBT}{root}: {len(images)} images {where}"
    if others:
        text = f"files are not read as images, they end in {kinds(others)}"
        yield f"{DOUBT}{root}: {len(others)} {text}"


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
        said, more = ", ".join(unknown) or "none", " ..." if len(present) > 20 else ""
        there = f"those of {place}: {', '.join(present[:20])}{more}"
        raise ValueError(f"categories: {said} not among {there}")
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


def match_masks(
    images: dict[Path, Folder], masks: dict[Path, Folder], normal: dict[Path, Folder]
) -> tuple[dict[Path, Path], list[str], list[Path]]:
    """Finds each image's mask, the most literal name first.

    ``dent/7.jpg`` has the mask ``dent/7.jpg.png``, ``dent/7.png``, ``dent/7_mask.png``,
    ``dent/gt-7.png``; in capitals or not; with or without a folder for the defect. A name that
    would fit several images, or a second mask for one, is a problem, and nothing is guessed.

    Args:
        images: Anomalous images, each with its folder, relative to the category.
        masks: Masks, each with its folder, relative to that of the masks.
        normal: Normal images; their masks, in folders of their own, are known and not needed.

    Returns:
        Masks by image, problems in words, and masks that fit no image.
    """
    named: dict[Key, list[Path]] = defaultdict(list)
    for image, folder in (images | normal).items():
        for depth, fold, whole in product(DEPTHS, FOLDS, (True, False)):
            place = () if depth is None else folder[depth:]
            # The mask of a normal image is known by its folder only.
            if place or image in images:
                name = fold(image.name if whole else image.stem)
                named[depth, fold, whole, fold("/".join(place)), name].append(image)

    fits, problems, unmatched = defaultdict(list), [], []
    for mask, folder in masks.items():
        fitting = _fitting(mask, folder, named, images)
        if len(fitting) > 1:
            several = ", ".join(image.name for image in fitting)
            problems.append(f"{mask}: one mask fits {len(fitting)} images, {several}")
        elif fitting:
            fits[fitting[0]].append(mask)
        else:
            unmatched.append(mask)
    for image, alike in fits.items():
        if len(alike) > 1:
            problems.append(f"{image}: two masks fit it, {alike[0]} and {alike[1]}")
    return {image: fits[image][0] for image in images if image in fits}, problems, unmatched


def _fitting(mask: Path, folder: Folder, named: dict[Key, list[Path]], images) -> list[Path]:
    """The images that a mask's name fits, in the most literal way that fits any."""
    for depth, fold, bare, whole in product(DEPTHS, FOLDS, (False, True), (True, False)):
        place = "" if depth is None else "/".join(folder)
        name = plain(mask.stem) if bare else mask.stem
        fitting = named.get((depth, fold, whole, fold(place), fold(name)), [])
        # A mask in a folder of its own is none of an image that lies in another.
        apart = depth is None and folder and any(images[image][1:] for image in fitting)
        if fitting and not apart:
            return fitting
    return []
