"""Folders in the two layouts of anomaly detection: one's own, and that of MVTec AD.

One's own: ``normal/``, ``anomaly/`` (or a folder in it for each type of defect), ``masks/``.
MVTec AD (Bergmann et al., CVPR 2019) and VisA as its authors' script re-arranges it:
``train/good``, ``test/good``, ``test/<defect>``, ``ground_truth/<defect>``. Several categories
lie beside each other, each a folder. MVTec AD is CC BY-NC-SA 4.0; see ``data/README.md``.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spdlib import paths
from spdlib.datasets import files
from spdlib.datasets.files import Categories, Folder, match_masks
from spdlib.datasets.samples import make_table, sample

MASKS = -1  # in place of a label
Kind = tuple[int, str]  # label or MASKS, split
Rows = list[dict[str, Any]]


def folder(
    root: str | Path, categories: Categories = None, test_fraction: float = 0.3, seed: int = 0
) -> pd.DataFrame:
    """The samples of one's own folder, split for one-class training.

    Some of the normal images, drawn at random, are held out for testing; anomalies are all test.

    Args:
        root: Holds ``normal/`` and, if there are any, ``anomaly/`` and ``masks/``; or a folder
            per category that does.
        categories: Names of categories, by default all; a single one is named by its folder.
        test_fraction: Share of a category's normal images held out, in (0, 1).
        seed: Seed for what is held out.

    Returns:
        A table of samples.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The layout is another, a category is unknown, the fraction is not in (0, 1),
            a category has fewer than three normal images, or none of its masks fits an image.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction: {test_fraction} is not between 0 and 1")

    def split(path: Path, rows: Rows) -> Rows:
        normal = [row for row in rows if row["label"] == 0]
        need(path / "normal", len(normal), 3, "two to train on and one to test on")
        # Of two held out, a defect can be painted on one.
        held_out = min(max(2, round(test_fraction * len(normal))), len(normal) - 2)
        for number in np.random.default_rng(seed).permutation(len(normal))[held_out:]:
            normal[number]["split"] = "train"
        return sorted(rows, key=lambda row: row["label"])

    return _read(Path(root), categories, is_own, own_kind, split)


def mvtec(root: str | Path | None = None, categories: Categories = None) -> pd.DataFrame:
    """The samples of an MVTec AD tree, or of any laid out so, split as it is laid out.

    Args:
        root: The folder of categories, or one category's folder; by default ``data/mvtec``.
        categories: Names of categories, by default all that are there.

    Returns:
        A table of samples. ``mask_path`` is ``None`` for normal samples and where an anomaly
        has no mask.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No category is found in it, one asked for is not, one holds fewer than two
            images to train on, or none of its masks fits an image.
    """

    def split(path: Path, rows: Rows) -> Rows:
        train = sum(row["split"] == "train" and row["label"] == 0 for row in rows)
        need(path / "train" / "good", train, 2, "two")
        return sorted(rows, key=lambda row: row["split"] != "train")

    return _read(Path(root or paths.data() / "mvtec"), categories, is_mvtec, mvtec_kind, split)


def need(folder: Path, count: int, least: int, what: str) -> None:
    """Refuses a folder with too few images.

    Raises:
        ValueError: It holds fewer than ``least``.
    """
    if count < least:
        few = {0: "no images", 1: "one image"}.get(count, f"{count} images")
        raise ValueError(f"{folder} holds {few}; {what} are needed")


def is_own(path: Path) -> bool:
    """Whether a folder is a category of one's own: it has ``normal``."""
    return (path / "normal").is_dir()


def is_mvtec(path: Path) -> bool:
    """Whether a folder is a category as MVTec AD lays it out: it has ``train/good``."""
    return (path / "train" / "good").is_dir()


def own_kind(inner: Folder) -> Kind | None:
    """Label and split of what lies in a folder of a category of one's own."""
    labels = {"normal": 0, "anomaly": 1, "masks": MASKS}
    return (labels[inner[0]], "test") if inner and inner[0] in labels else None


def mvtec_kind(inner: Folder) -> Kind | None:
    """Label and split of what lies in a folder of a category as MVTec AD lays it out."""
    if inner and inner[0] == "ground_truth":
        return MASKS, "test"
    if len(inner) > 1 and inner[0] in ("train", "test"):
        return int(inner[1] != "good"), inner[0]
    return None


def _read(
    root: Path,
    categories: Categories,
    is_category: Callable[[Path], bool],
    kind_of: Callable[[Folder], Kind | None],
    split: Callable[[Path, Rows], Rows],
) -> pd.DataFrame:
    """A table of the categories asked for, with notes on what else holds images."""
    root = root.expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there; data/README.md says what belongs there")
    rows, notes, present = [], list[str](), {root.name: root}
    if not is_category(root):
        present = {path.name: path for path in files.folders(root) if is_category(path)}
        others = [p for p in files.walk(root) if p.relative_to(root).parts[0] not in present]
        files.refuse_odd(filter(files.is_image, others), root)
        notes += files.left_out(root, others)
    if not present:
        files.refuse(root, "is laid out in no known way")
    for name in files.wanted(categories, present, root):
        rows += split(present[name], _category(present[name], kind_of, notes))
    return make_table(rows, notes)


def _category(root: Path, kind_of: Callable, notes: list[str]) -> Rows:
    """Rows of one category, normal and anomalous images with their masks."""
    found: dict[int, dict[Path, Folder]] = {0: {}, 1: {}, MASKS: {}}
    rows, others = [], []
    for path in files.walk(root):
        inner = path.parent.relative_to(root).parts
        kind = kind_of(inner) if files.is_image(path) else None
        if kind is None:
            others.append(path)
            continue
        label, split = kind
        found[label][path] = inner[1:] if label == MASKS else inner
        if label != MASKS:
            defect = "/".join(inner[1:]) or "anomaly" if label else "good"
            rows.append(sample(path, label, root.name, defect, split))
    normal, anomalies, masks = found.values()
    _refuse_misplaced(root, normal, anomalies, filter(files.is_image, others))
    matched, problems, unmatched = match_masks(anomalies, masks, normal)
    files.refuse_masks_beside({**normal, **anomalies}.keys() - matched.keys())
    if masks and anomalies and len(unmatched) == len(masks):
        text = f"none of its {len(masks)} masks fits an image, e.g. {unmatched[0]}"
        hint = "An image dent/7.jpg has the mask dent/7.png, 7_mask.png, mask_7.png or 7.jpg.png"
        raise ValueError(f"{root}: {text}. {hint}")
    if unmatched:
        text = f"{len(unmatched)} masks fit no image, e.g. {unmatched[0]}"
        problems.append(f"{files.DOUBT}{root}: {text}")
    notes += [*problems, *files.left_out(root, others)]
    masked = {str(image): str(mask) for image, mask in matched.items()}
    return [row | {"mask_path": masked.get(row["path"])} for row in rows]


def _refuse_misplaced(root: Path, normal, anomalies, others: Iterator[Path]) -> None:
    """Refuses defects or masks in folders for other images, or beside them."""
    for path, inner in anomalies.items():
        if any(map(files.is_masks, inner[1:])):
            files.refuse(path.parent, "is named like masks, but lies among images")
    for top in {inner[0] for inner in normal.values()}:
        files.refuse_odd([path for path in normal if normal[path][0] == top], root / top)
    strays = [path for path in others if path.parent != root]
    files.refuse_odd(strays, root)
    if strays and not anomalies:
        why = f"belongs to no layout, and {root} has no anomalous images: is it meant for them?"
        files.refuse(strays[0].parent, why)
