"""VisA (Zou et al., ECCV 2022): 10,821 images of 12 objects, 1,200 of them anomalies with masks.

Two layouts are read. The published one holds ``<object>/Data/Images/{Normal,Anomaly}``,
``<object>/Data/Masks/Anomaly``, ``<object>/image_anno.csv`` and, in ``split_csv``, a file for
each of the paper's protocols, which is followed to the letter. The authors' script re-arranges
it into ``1cls/<object>/train/good`` and so on. VisA is CC BY 4.0.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pandas as pd

from spdlib import paths
from spdlib.datasets.download import fetch, is_unpacked, unpack
from spdlib.datasets.files import Categories, folders, wanted
from spdlib.datasets.layouts import is_mvtec, mvtec
from spdlib.datasets.samples import make_table, sample

URL = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar"
# Of the archive's 1,929,840,640 bytes; anomalib checks its downloads by the same digest.
SHA256 = "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362"
SPLIT_FILES = {"one_class": "1cls", "high_shot": "2cls_highshot", "few_shot": "2cls_fewshot"}
KNOWN = {"split": ("test", "train"), "label": ("anomaly", "normal")}  # values of a split file
COLUMNS = (*KNOWN, "object", "image", "mask")


def visa(
    root: str | Path | None = None, categories: Categories = None, protocol: str = "one_class"
) -> pd.DataFrame:
    """The samples of VisA, split as published.

    Args:
        root: Holds the objects and ``split_csv``, or ``1cls`` and its like; by default
            ``data/visa``, where :func:`download_visa` puts it.
        categories: Names of objects, by default all that are there.
        protocol: Split, ``"one_class"``, ``"high_shot"`` or ``"few_shot"``. The last one's
            training samples are the pool to draw from; see
            :func:`~spdlib.datasets.protocols.few_shot`.

    Returns:
        A table of samples. ``defect`` is what ``image_anno.csv`` says, where it is there.

    Raises:
        FileNotFoundError: There is no such folder, or no split file in it.
        ValueError: The protocol or an object is unknown, or a split file is not one.
    """
    if protocol not in SPLIT_FILES:
        raise ValueError(f"protocol: {protocol!r} not among {', '.join(SPLIT_FILES)}")
    root = Path(root or paths.data() / "visa").expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there; spdlib.datasets.download_visa() fetches it")
    if (root / "split_csv").is_dir():
        return _published(root, categories, protocol)
    name = SPLIT_FILES[protocol]
    arranged = root if root.name == name else root / name
    if arranged.is_dir():
        return mvtec(arranged, categories)
    lacking = f"neither split_csv nor {name}; VisA's archive brings split_csv"
    raise FileNotFoundError(f"{root} holds {lacking}")


def layout(root: Path) -> str | None:
    """The protocol for which a folder is laid out like VisA, in either way; None if it is not."""
    for protocol, name in SPLIT_FILES.items():
        split_file, arranged = root / "split_csv" / f"{name}.csv", root / name
        itself = root.name == name and any(map(is_mvtec, folders(root)))
        if itself or arranged.is_dir() or split_file.exists():
            return protocol
    return None


def download_visa(root: str | Path | None = None, url: str = URL, sha256: str = SHA256) -> Path:
    """Fetches VisA (1.9 GB), checks it and unpacks it, unless that is done already.

    A broken download goes on at the next call. An archive that was brought here by hand is
    taken as it is when it lies beside ``root`` under its own name.

    Args:
        root: Folder for it, by default ``data/visa``.
        url: Address of the archive.
        sha256: Digest of the archive, hexadecimal.

    Returns:
        ``root``, for :func:`visa`.

    Raises:
        FileExistsError: ``root`` holds something that was not unpacked here.
        ConnectionError: The archive cannot be reached; what has arrived is kept.
        ValueError: The archive has another digest, is damaged or unsafe.
        OSError: The disk has not enough room.
    """
    root = Path(root or paths.data() / "visa").expanduser()
    if is_unpacked(root, sha256):
        return root
    if root.exists() and any(root.iterdir()):
        hint = "If it is VisA, visa() reads it as it is; otherwise remove it or name another folder"
        raise FileExistsError(f"{root} holds files that are not, or not all, of {url}. {hint}")
    archive = fetch(url, root.parent / url.rsplit("/", 1)[-1], sha256)
    unpack(archive, root, sha256)
    archive.unlink()
    return root


def official_splits(images: Iterable[str | Path], protocol: str) -> list[str | None]:
    """Split of each image, as published.

    Args:
        images: Paths of the images.
        protocol: Split, as for :func:`visa`.

    Returns:
        ``"train"`` or ``"test"`` for each, or None where it lies in no VisA tree with splits.

    Raises:
        ValueError: An image's tree has splits, but not this one, or this one lacks the image.
    """

    @cache
    def splits(root: Path) -> dict[str, str]:
        if not (root / "split_csv").is_dir():
            return {}
        rows = _split_file(root, protocol)
        return dict(zip(rows.image, rows.split, strict=True))

    def split(image: Path) -> str | None:
        _, side, kind, arranged, root = ([*image.parents, *[Path()] * 5])[:5]
        # 1cls/<object>/train/good/000.JPG
        if arranged.name in SPLIT_FILES.values() and side.name in KNOWN["split"]:
            if arranged.name == SPLIT_FILES[protocol]:
                return side.name
            needed = f"the folder {SPLIT_FILES[protocol]} or the published layout with split_csv"
            raise ValueError(f"{image} is arranged for {arranged.name}; {protocol} needs {needed}")
        # <object>/Data/Images/Normal/000.JPG
        if kind.name != "Data" or not (known := splits(root)):
            return None
        name = image.relative_to(root).as_posix()
        if name not in known:
            raise ValueError(f"{name} is not in split_csv/{SPLIT_FILES[protocol]}.csv")
        return known[name]

    return [split(Path(image)) for image in images]


def _split_file(root: Path, protocol: str) -> pd.DataFrame:
    """The split file of a protocol, as it is: object, split, label, image, mask."""
    file = root / "split_csv" / f"{SPLIT_FILES[protocol]}.csv"
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there; VisA's archive brings it")
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    if missing := set(COLUMNS) - set(rows.columns):
        raise ValueError(f"{file}: columns are missing: {', '.join(missing)}")
    for column, known in KNOWN.items():
        if odd := sorted({*rows[column]} - {*known}):
            raise ValueError(f"{file}: {column} {odd[0]!r} is none of {', '.join(known)}")
    return rows


def _published(root: Path, categories: Categories, protocol: str) -> pd.DataFrame:
    rows = _split_file(root, protocol)
    present = [name for name in rows.object.unique() if (root / name).is_dir()]
    if not present:
        raise FileNotFoundError(f"{root} holds split_csv, but none of the objects it lists")
    asked = wanted(categories, present, root)
    defects: dict[str, str] = {}
    for file in (root / name / "image_anno.csv" for name in asked):
        if file.exists():
            notes = pd.read_csv(file, dtype=str, keep_default_na=False)
            defects |= dict(zip(notes.image, notes.label, strict=True))
    samples = []
    for row in rows[rows.object.isin(asked)].itertuples():
        label, mask = int(row.label == "anomaly"), row.mask and root / row.mask
        defect = defects.get(row.image, "anomaly") if label else "good"
        samples.append(sample(root / row.image, label, row.object, defect, row.split, mask))
    return make_table(samples)
