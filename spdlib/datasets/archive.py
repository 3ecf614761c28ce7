"""Unpacking a tar archive so that nothing escapes and nothing is left half done."""

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from spdlib.datasets.download import need_room
from spdlib.progress import track

MARKER = ".unpacked.json"
# Python 3.11 has the filter since 3.11.4 only.
FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def unpack(archive: str | Path, folder: str | Path, sha256: str) -> Path:
    """Unpacks a tar archive into a new folder, all of it or nothing.

    Args:
        archive: The archive, compressed or not.
        folder: Where its content goes; it must not hold anything.
        sha256: The archive's digest, noted in the folder for :func:`is_unpacked`.

    Returns:
        ``folder``.

    Raises:
        ValueError: A member would land outside the folder, or is a link or a device; or the
            archive is damaged. Nothing is left then.
        OSError: The folder holds something, or the disk has not enough room.
    """
    archive, folder = Path(archive), Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rmdir()
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with tarfile.open(archive) as tar:
            members = list(_harmless(tar))
            need_room(folder.parent, sum(member.size for member in members))
            for member in track(members, f"unpacking {archive.name}", "files"):
                # The filter checks once more, and drops owners and odd permissions.
                tar.extract(member, beside, **FILTER)
        marker = {"sha256": sha256, "files": _count(beside)}
        (beside / MARKER).write_text(json.dumps(marker))
        beside.chmod(0o755)
        beside.rename(folder)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive}: damaged or unsafe ({error})") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def is_unpacked(folder: str | Path, sha256: str) -> bool:
    """Whether :func:`unpack` has filled a folder from this archive, and all its files are there."""
    try:
        marker = json.loads((Path(folder) / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return marker["sha256"] == sha256 and _count(Path(folder)) >= marker["files"]


def _harmless(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """An archive's members, each checked before any is written."""
    for member in tar:
        for kind in (PurePosixPath, PureWindowsPath):
            name = kind(member.name)
            if name.is_absolute() or name.drive or ".." in name.parts:
                raise ValueError(f"{tar.name}: {member.name!r} would land outside the folder")
        if not (member.isfile() or member.isdir()):
            raise ValueError(f"{tar.name}: {member.name!r} is a link or a device, not a file")
        yield member


def _count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*") if path.name != MARKER)
