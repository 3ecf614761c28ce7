"""VisA's published splits: the files in ``split_csv``, one for each of the paper's protocols."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

OBJECTS = (
    *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
    *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
)
SPLIT_FILES = {"one_class": "1cls", "high_shot": "2cls_highshot", "few_shot": "2cls_fewshot"}
# Rows of the published split files: normal and anomalous, for training and for testing.
TOTALS = {
    "one_class": {"train": (8659, 0), "test": (962, 1200)},
    "high_shot": {"train": (5773, 720), "test": (3848, 480)},
    "few_shot": {"train": (1924, 240), "test": (7697, 960)},
}


def read_split(root: Path, protocol: str) -> pd.DataFrame:
    """The split file of a protocol, as it is: object, split, label, image, mask.

    Warns where it lists all objects, but not as many samples as the published file.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It lacks a column, or a split or label is unknown.
    """
    file = root / "split_csv" / f"{SPLIT_FILES[protocol]}.csv"
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there; VisA's archive brings it")
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    columns = {"object", "split", "label", "image", "mask"}
    if not columns <= set(rows.columns):
        raise ValueError(f"{file}: columns are missing: {', '.join(columns - set(rows.columns))}")
    for column, known in (("split", {"train", "test"}), ("label", {"normal", "anomaly"})):
        if odd := sorted(set(rows[column]) - known):
            raise ValueError(f"{file}: {column} {odd[0]!r} is none of {', '.join(sorted(known))}")
    if set(OBJECTS) <= set(rows.object):
        for split, expected in TOTALS[protocol].items():
            labels = rows.label[(rows.split == split) & rows.object.isin(OBJECTS)]
            counts = int((labels == "normal").sum()), int((labels == "anomaly").sum())
            if counts != expected:
                warnings.warn(
                    f"{file}: {counts[0]} normal and {counts[1]} anomalous samples to {split}, "
                    f"the published file has {expected[0]} and {expected[1]}",
                    stacklevel=3,
                )
    return rows


def official_splits(images: Sequence[str | Path], protocol: str) -> list[str | None]:
    """Where the published splits put images.

    Args:
        images: Their paths.
        protocol: As for :func:`visa`.

    Returns:
        For each ``"train"`` or ``"test"``, or None where it lies in no VisA tree with splits.

    Raises:
        ValueError: An image's tree has splits, but not this one, or this one lacks the image.
    """
    files: dict[Path, dict[str, str] | None] = {}
    return [_official_split(Path(image), protocol, files) for image in images]


def _official_split(image: Path, protocol: str, files: dict) -> str | None:
    if len(image.parents) < 5:
        return None
    _, split, kind, arranged, _ = (parent.name for parent in image.parents[:5])
    if arranged in SPLIT_FILES.values() and split in ("train", "test"):
        # 1cls/<object>/train/good/000.JPG
        if arranged != SPLIT_FILES[protocol]:
            raise ValueError(
                f"{image} is arranged for {arranged}; {protocol} needs the folder "
                f"{SPLIT_FILES[protocol]} or the published layout with split_csv"
            )
        return split
    if kind != "Data":
        return None
    # <object>/Data/Images/Normal/000.JPG
    root = image.parents[4]
    if root not in files:
        there = (root / "split_csv").is_dir()
        rows = read_split(root, protocol) if there else None
        files[root] = dict(zip(rows.image, rows.split, strict=True)) if there else None
    if files[root] is None:
        return None
    name = image.relative_to(root).as_posix()
    if name not in files[root]:
        raise ValueError(f"{name} is not in split_csv/{SPLIT_FILES[protocol]}.csv")
    return files[root][name]
