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
    used: set[Path] = set()
    problems = []
    # From the category on, within the type of defect, or in no folder; and so on.
    known = [(path, folder, path in images) for path, folder in (images | normal).items()]
    names = {path: (path.stem, path.name) for path, _, _ in known}
    ways = product((0, 1, None), (str, str.casefold), (False, True), (True, False))
    for depth, fold, bare, whole in ways:
        named, given = defaultdict(list), defaultdict(list)
        for image, folder, anomalous in known:
            if anomalous or (depth is not None and folder[depth:]):
                place = fold("/".join(_from(folder, depth)))
                named[place, fold(names[image][whole])].append(image)
        for mask in masks.keys() - used:
            folder = fold("/".join(masks[mask] if depth is not None else ()))
            given[folder, fold(plain(mask.stem) if bare else mask.stem)].append(mask)
        for key in given.keys() & named.keys():
            fitting = named[key]
            fits = sorted(
                mask
                for mask in given[key]
                if depth is not None
                or not masks[mask]
                or not any(images[image][1:] for image in fitting)
            )
            if not fits:
                continue
            used.update(fits)
            if len(fitting) > 1:
                names = ", ".join(sorted(image.name for image in fitting))
                problems.append(f"{fits[0]}: one mask fits {len(fitting)} images, {names}")
            elif len(fits) > 1 or fitting[0] in found:
                known = [found[fitting[0]]] if fitting[0] in found else []
                names = " and ".join(str(mask) for mask in [*known, *fits])
                problems.append(f"{fitting[0]}: two masks fit it, {names}")
            else:
                found[fitting[0]] = fits[0]
        if len(used) == len(masks):
            break
    return Matched(
        {image: mask for image, mask in found.items() if image in images},
        sorted(problems),
        sorted(masks.keys() - used),
    )


def _from(folder: Folder, depth: int | None) -> Folder:
    return () if depth is None else folder[depth:]
