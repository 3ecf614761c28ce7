"""VisA (Zou et al., ECCV 2022): 10,821 images of 12 objects, 1,200 of them anomalies with masks.

Two layouts are read. The published one holds ``<object>/Data/Images/{Normal,Anomaly}``,
``<object>/Data/Masks/Anomaly``, ``<object>/image_anno.csv`` and, in ``split_csv``, a file for
each of the paper's protocols, which is followed to the letter. The authors' script re-arranges
it into ``1cls/<object>/train/good`` and so on. VisA is CC BY 4.0.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from spdlib import paths
from spdlib.datasets.download import fetch, is_unpacked, unpack
from spdlib.datasets.files import folders, wanted
from spdlib.datasets.layouts import is_mvtec, mvtec
from spdlib.datasets.levels import with_levels
from spdlib.datasets.samples import make_table, sample
from spdlib.datasets.visa_splits import SPLIT_FILES, read_split

URL = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar"
# Of the archive's 1,929,840,640 bytes; anomalib checks its downloads by the same digest.
SHA256 = "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362"


def visa(
    root: str | Path | None = None,
    categories: str | Sequence[str] | None = None,
    protocol: str = "one_class",
) -> pd.DataFrame:
    """The samples of VisA, split as published.

    Args:
        root: Holds the objects and ``split_csv``, or ``1cls`` and its like; by default
            ``data/visa``, where :func:`download_visa` puts it.
        categories: Which objects, by default all that are there.
        protocol: Which split, ``"one_class"``, ``"high_shot"`` or ``"few_shot"``. The last one's
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
    name = SPLIT_FILES[protocol]
    if (root / "split_csv").is_dir():
        return _published(root, categories, protocol)
    for folder in (root, root / name):
        if folder.name == name and folder.is_dir():
            return mvtec(folder, categories)
    raise FileNotFoundError(
        f"{root} holds neither split_csv nor {name}; VisA's archive brings split_csv"
    )


def layout(root: Path) -> str | None:
    """For which protocol a folder is laid out like VisA, in either way; None if it is not."""
    for protocol, name in SPLIT_FILES.items():
        if root.resolve().name == name and any(map(is_mvtec, folders(root))):
            return protocol
    for protocol, name in SPLIT_FILES.items():
        if (root / "split_csv" / f"{name}.csv").exists() or (root / name).is_dir():
            return protocol
    return None


def download_visa(root: str | Path | None = None, url: str = URL, sha256: str = SHA256) -> Path:
    """Fetches VisA (1.9 GB), checks it and unpacks it, unless that is done already.

    A broken download goes on at the next call. An archive that was brought here by hand is
    taken as it is when it lies beside ``root`` under its own name.

    Args:
        root: Where it goes, by default ``data/visa``.
        url: Of the archive.
        sha256: Of the archive, hexadecimal.

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
        raise FileExistsError(
            f"{root} holds files that are not, or not all, of {url}. If it is VisA, visa() reads "
            "it as it is; otherwise remove it or name another folder"
        )
    archive = fetch(url, root.parent / url.rsplit("/", 1)[-1], sha256)
    unpack(archive, root, sha256)
    archive.unlink()
    return root


def _published(root: Path, categories, protocol: str) -> pd.DataFrame:
    rows = read_split(root, protocol)
    present = [name for name in rows.object.unique() if (root / name).is_dir()]
    if not present:
        raise FileNotFoundError(f"{root} holds split_csv, but none of the objects it lists")
    asked = wanted(categories, present, root)
    rows = rows[rows.object.isin(asked)]
    defects = {}
    for name in asked:
        file = root / name / "image_anno.csv"
        if file.exists():
            notes = pd.read_csv(file, dtype=str, keep_default_na=False)
            defects |= dict(zip(notes.image, notes.label, strict=True))
    samples = []
    for row in rows.itertuples():
        anomalous = row.label == "anomaly"
        defect = defects.get(row.image, "anomaly") if anomalous else "good"
        mask = root / row.mask if row.mask else None
        samples.append(
            sample(root / row.image, int(anomalous), row.object, defect, row.split, mask)
        )
    return with_levels(make_table(samples))
