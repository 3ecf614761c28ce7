"""Folders in the two layouts of anomaly detection: one's own, and that of MVTec AD.

One's own: ``normal/``, ``anomaly/`` (or a folder in it for each type of defect), ``masks/``.
MVTec AD (Bergmann et al., CVPR 2019) and VisA as its authors' script re-arranges it:
``train/good``, ``test/good``, ``test/<defect>``, ``ground_truth/<defect>``. Several categories
lie beside each other, each a folder. MVTec AD is CC BY-NC-SA 4.0; see ``data/README.md``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from spdlib import paths
from spdlib.datasets.files import (
    LAYOUTS,
    PAPERS,
    folders,
    is_image,
    is_masks,
    is_visible,
    kinds,
    refuse_masks_beside,
    refuse_odd,
    walk,
    wanted,
)  # fmt: skip
from spdlib.datasets.levels import with_levels
from spdlib.datasets.masks import Folder, match_masks
from spdlib.datasets.samples import make_table, sample

MASKS = -1  # in place of a label
COUNTS = ("no images", "one image")
Kind = tuple[int, str, Folder]  # label or MASKS, split, folders of the defect's name


@dataclass
class Found:
    """Rows of a table, and what there is to say about the files behind them."""

    rows: list[dict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """The table; ``check`` finds the problems and doubts in its ``attrs``."""
        table = make_table(self.rows)
        table.attrs = {"problems": self.problems, "doubts": self.doubts}
        return with_levels(table)

    def note_left_out(self, root: Path, files: list[Path]) -> None:
        """Says which files are no samples, in a line or two."""
        images = [path for path in files if is_image(path)]
        others = [path for path in files if not is_image(path)]
        others = [path for path in others if path.suffix.lower() not in PAPERS]
        if images:
            where = f"in none of the layout's folders, e.g. {images[0]}"
            self.doubts.append(f"{root}: {len(images)} images lie {where}")
        if others:
            text = f"{len(others)} files are not read as images, they end in {kinds(others)}"
            self.doubts.append(f"{root}: {text}")


def folder(
    root: str | Path,
    categories: str | Sequence[str] | None = None,
    test_fraction: float = 0.3,
    seed: int = 0,
) -> pd.DataFrame:
    """The samples of one's own folder, split for one-class training.

    Some of the normal images, drawn at random, are held out for testing; anomalies are all test.

    Args:
        root: Holds ``normal/`` and, if there are any, ``anomaly/`` and ``masks/``; or a folder
            per category that does.
        categories: Which ones, by default all; a single category is named by its folder.
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
    root = Path(root).expanduser().resolve()
    found = Found()
    for category, path in _categories(root, categories, is_own, found):
        rows = _category(path, category, own_kind, found)
        normal = [row for row in rows if row["label"] == 0]
        if len(normal) < 3:
            few = COUNTS[len(normal)] if len(normal) < 2 else "2 images"
            raise ValueError(
                f"{path / 'normal'} holds {few}; two to train on and one to test on are needed"
            )
        # Of two held out, a defect can be painted on one.
        held_out = min(max(2, round(test_fraction * len(normal))), len(normal) - 2)
        for number in np.random.default_rng(seed).permutation(len(normal))[held_out:]:
            normal[number]["split"] = "train"
        found.rows += sorted(rows, key=lambda row: row["label"])
    return found.table()


def mvtec(
    root: str | Path | None = None, categories: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """The samples of an MVTec AD tree, or of any laid out so, split as it is laid out.

    Args:
        root: The folder of categories, or one category's folder; by default ``data/mvtec``.
        categories: Which ones, by default all that are there.

    Returns:
        A table of samples. ``mask_path`` is ``None`` for normal samples and where an anomaly
        has no mask.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No category is found in it, one asked for is not, one holds fewer than two
            images to train on, or none of its masks fits an image.
    """
    root = Path(root or paths.data() / "mvtec").expanduser().resolve()
    found = Found()
    for category, path in _categories(root, categories, is_mvtec, found):
        rows = _category(path, category, mvtec_kind, found)
        train = sum(row["split"] == "train" and row["label"] == 0 for row in rows)
        if train < 2:
            raise ValueError(f"{path / 'train' / 'good'} holds {COUNTS[train]}; two are needed")
        found.rows += sorted(rows, key=lambda row: row["split"] != "train")
    return found.table()


def is_own(path: Path) -> bool:
    """Whether a folder is a category of one's own: it has ``normal``."""
    return (path / "normal").is_dir()


def is_mvtec(path: Path) -> bool:
    """Whether a folder is a category as MVTec AD lays it out: it has ``train/good``."""
    return (path / "train" / "good").is_dir()


def own_kind(inner: Folder) -> Kind | None:
    """What lies in a folder of a category of one's own."""
    labels = {"normal": 0, "anomaly": 1, "masks": MASKS}
    return (labels[inner[0]], "test", inner[1:]) if inner and inner[0] in labels else None


def mvtec_kind(inner: Folder) -> Kind | None:
    """What lies in a folder of a category as MVTec AD lays it out."""
    if inner and inner[0] == "ground_truth":
        return MASKS, "test", inner[1:]
    if len(inner) > 1 and inner[0] in ("train", "test"):
        return int(inner[1] != "good"), inner[0], inner[1:]
    return None


def _categories(root: Path, categories, is_category: Callable, found: Found):
    """The categories asked for, by name; says what else holds images."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there; data/README.md says what belongs there")
    if is_category(root):
        present = {root.name: root}
    else:
        present = {path.name: path for path in folders(root) if is_category(path)}
        others = [path for path in root.iterdir() if path.name not in present]
        files = [f for path in others if is_visible(path) for f in _files(path)]
        refuse_odd(filter(is_image, files), root)
        found.note_left_out(root, files)
    if not present:
        raise ValueError(f"{root} is laid out as none of these:\n{LAYOUTS}")
    return [(name, present[name]) for name in wanted(categories, present, root)]


def _files(path: Path) -> list[Path]:
    return walk(path) if path.is_dir() else [path]


def _category(root: Path, category: str, kind_of: Callable, found: Found) -> list[dict]:
    """Rows of one category, normal and anomalous images with their masks."""
    sorted_files: dict[int, dict[Path, Folder]] = {0: {}, 1: {}, MASKS: {}}
    rows, others = [], []
    for path in walk(root):
        inner = path.parent.relative_to(root).parts
        kind = kind_of(inner)
        if kind is None or not is_image(path):
            others.append(path)
            continue
        label, split, defect = kind
        sorted_files[label][path] = defect if label == MASKS else inner
        if label != MASKS:
            named = "/".join(defect) or "anomaly" if label else "good"
            rows.append(sample(path, label, category, named, split))
    normal, anomalies, masks = sorted_files[0], sorted_files[1], sorted_files[MASKS]
    _refuse_misplaced(root, normal, anomalies, [path for path in others if is_image(path)])
    matched = match_masks(anomalies, masks, normal)
    refuse_masks_beside({**normal, **anomalies}.keys() - matched.masks.keys())
    if masks and anomalies and len(matched.unmatched) == len(masks):
        raise ValueError(
            f"{root}: none of its {len(masks)} masks fits an image, e.g. {matched.unmatched[0]}. "
            "An image dent/7.jpg has the mask dent/7.png, 7_mask.png, mask_7.png or 7.jpg.png"
        )
    if matched.unmatched:
        first = matched.unmatched[0]
        found.doubts.append(f"{root}: {len(matched.unmatched)} masks fit no image, e.g. {first}")
    found.problems += matched.problems
    found.note_left_out(root, others)
    for row in rows:
        mask = matched.masks.get(Path(row["path"]))
        row["mask_path"] = str(mask) if mask else None
    return rows


def _refuse_misplaced(root: Path, normal, anomalies, others: list[Path]) -> None:
    """Refuses defects or masks in folders for other images, or beside them."""
    for path, inner in anomalies.items():
        if any(is_masks(name) for name in inner[1:]):
            raise ValueError(f"{path.parent} is named like masks, but lies among images")
    for top in {inner[:1] for inner in normal.values()}:
        below = root / Path(*top)
        refuse_odd([path for path, inner in normal.items() if inner[:1] == top], below)
    strays = [path for path in others if path.parent != root]
    refuse_odd(strays, root)
    if strays and not anomalies:
        raise ValueError(
            f"{strays[0].parent} belongs to no layout, and {root} has no anomalous images: "
            f"is it meant for them? Known are:\n{LAYOUTS}"
        )
