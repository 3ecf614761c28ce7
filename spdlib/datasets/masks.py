"""Which mask belongs to which image, by the ways people name them."""

from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import NamedTuple

from spdlib.datasets.files import plain

Folder = tuple[str, ...]


class Matched(NamedTuple):
    """Masks by image; ``problems`` in words; masks that fit no image."""

    masks: dict[Path, Path]
    problems: list[str]
    unmatched: list[Path]


def match_masks(
    images: dict[Path, Folder], masks: dict[Path, Folder], normal: dict[Path, Folder]
) -> Matched:
    """Finds each image's mask, the most literal name first.

    ``dent/7.jpg`` has the mask ``dent/7.jpg.png``, ``dent/7.png``, ``dent/7_mask.png``,
    ``dent/gt-7.png``; in capitals or not; with or without a folder for the defect. A name that
    would fit several images, or a second mask for one, is a problem, and nothing is guessed.

    Args:
        images: Anomalous images, each with its folder, relative to the category.
        masks: Masks, each with its folder, relative to that of the masks.
        normal: Normal images; their masks, in folders of their own, are known and not needed.
    """
    found: dict[Path, Path] = {}
    left, problems = dict(masks), []
    # In a folder from the category on, in one for the type of defect, in none; and so on.
    for way in product((0, 1, None), (str, str.casefold), (False, True), (True, False)):
        named = _images_by_name(images, normal, *way)
        for key, fits in _masks_by_name(left, *way).items():
            fitting = named.get(key, [])
            if way[0] is None and any(images[image][1:] for image in fitting):
                fits = [mask for mask in fits if not left[mask]]
            if not fitting or not fits:
                continue
            for mask in fits:
                del left[mask]
            if len(fitting) > 1:
                several = ", ".join(image.name for image in fitting)
                problems.append(f"{fits[0]}: one mask fits {len(fitting)} images, {several}")
            elif len(fits) > 1 or fitting[0] in found:
                several = " and ".join(
                    str(mask) for mask in {found.get(fitting[0]), *fits} - {None}
                )
                problems.append(f"{fitting[0]}: two masks fit it, {several}")
            else:
                found[fitting[0]] = fits[0]
        if not left:
            break
    return Matched({image: found[image] for image in images if image in found}, problems, [*left])


def _images_by_name(images, normal, depth, fold, bare, whole) -> dict[tuple[str, str], list[Path]]:
    named = defaultdict(list)
    for group in (images, normal):
        for image, folder in group.items():
            place = () if depth is None else folder[depth:]
            # The mask of a normal image is known by its folder only.
            if place or group is images:
                name = image.name if whole else image.stem
                named[fold("/".join(place)), fold(name)].append(image)
    return named


def _masks_by_name(masks, depth, fold, bare, whole) -> dict[tuple[str, str], list[Path]]:
    named = defaultdict(list)
    for mask, folder in masks.items():
        place = "" if depth is None else "/".join(folder)
        named[fold(place), fold(plain(mask.stem) if bare else mask.stem)].append(mask)
    return named
