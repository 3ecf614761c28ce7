"""Finding images in folders, and telling by name what is none: hidden files, masks, defects."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

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


def walk(root: Path) -> list[Path]:
    """All visible files under a folder, sorted; a folder that is linked to is read once.

    Raises:
        OSError: A folder cannot be read.
    """

    def stop(error: OSError) -> None:
        raise error

    # A link back to where one comes from would bring in what lies beside.
    above = (root.resolve(), *root.resolve().parents)
    seen = {(stat.st_dev, stat.st_ino) for stat in map(os.stat, above)}
    files = []
    for folder, inner, names in os.walk(root, followlinks=True, onerror=stop):
        inner[:] = [name for name in sorted(inner) if _new(os.path.join(folder, name), seen)]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _new(folder: str, seen: set) -> bool:
    if not is_visible(folder):
        return False
    stat = os.stat(folder)
    known = (stat.st_dev, stat.st_ino) in seen
    seen.add((stat.st_dev, stat.st_ino))
    return not known


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


def wanted(
    categories: str | Sequence[str] | None, present: Iterable[str], place: str | Path
) -> list[str]:
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


def refuse_odd(images: Iterable[Path], root: Path) -> None:
    """Refuses images that the names of their folders make out to be defects or masks.

    Raises:
        ValueError: A folder has such a name, or lies beside one for good parts; or a file is
            named as the mask of one beside it.
    """
    inner = sorted({path.parent.relative_to(root) for path in images})
    beside = defaultdict(set)
    for folder in inner:
        for depth, name in enumerate(folder.parts):
            beside[folder.parts[:depth]].add(name)
            if is_odd(name):
                _refuse(root, Path(*folder.parts[: depth + 1]), "is named like defects or masks")
    for above, names in beside.items():
        good = {name for name in names if is_good(name)}
        if good and names - good:
            why = f"lies beside {min(good)}/, so it may hold defects"
            _refuse(root, Path(*above, min(names - good)), why)


def refuse_masks_beside(images: Iterable[Path]) -> None:
    """Refuses images that are named as masks of images in the same folder.

    Raises:
        ValueError: ``7_mask.png`` lies beside ``7.png``.
    """
    images = list(images)
    stems = {(path.parent, stem): path for path in images for stem in (path.stem, path.name)}
    for path in images:
        bare = plain(path.stem)
        picture = stems.get((path.parent, bare))
        if picture and bare != path.stem:
            raise ValueError(
                f"{path} is named as a mask and lies beside {picture.name}: masks need a folder "
                f"of their own. Known layouts:\n{LAYOUTS}"
            )


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


def _refuse(root: Path, folder: Path, why: str) -> None:
    raise ValueError(f"{root / folder} {why}; {root} is laid out as none of these:\n{LAYOUTS}")
