"""Masks of images, found by the ways people name them."""

from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path

from spdlib.datasets.files import plain

Folder = tuple[str, ...]
# How names are compared: folders left out, with or without capitals, with the ending or not;
# then the folder and the name.
Key = tuple[int | None, Callable[[str], str], bool, str, str]
DEPTHS = (0, 1, None)  # a folder from the category on, one for the type of defect, none
FOLDS: tuple[Callable[[str], str], ...] = (str, str.casefold)


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
