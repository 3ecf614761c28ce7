"""Fetching a large archive so that nothing is fetched twice, and unpacking it.

A download that breaks goes on where it stopped, now or at the next call. What arrives is used
only if its SHA-256 is the expected one. Nothing is unpacked outside its folder or by half.
"""

import hashlib
import tarfile
import time
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from spdlib.paths import need_room, whole_folder
from spdlib.progress import Bar, track

BROKEN = (HTTPException, URLError, ConnectionError, TimeoutError)
CHUNK = 1 << 20
MARKER = ".unpacked"


def fetch(url: str, path: str | Path, sha256: str, attempts: int = 5, wait: float = 1.0) -> Path:
    """Downloads a file, unless it is there already.

    Until it is whole and checked it lies beside, under a name that ends in ``.part``.

    Args:
        url: Address of the file, http or https.
        path: Path to write it to.
        sha256: Hexadecimal digest that it must have.
        attempts: Number of tries to connect.
        wait: Seconds before the second attempt; doubled before each further one.

    Returns:
        ``path``.

    Raises:
        ConnectionError: It cannot be reached; what has arrived is kept for the next call.
        ValueError: It has another digest; what has arrived is removed.
        OSError: The disk has not enough room.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"url: {url} is not an http or https address")
    path = Path(path)
    if path.exists():
        _check(path, sha256, "is there already, but")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(attempts):
        try:
            _receive(url, part)
            break
        except BROKEN as error:
            refused = isinstance(error, HTTPError) and error.code < 500
            if refused or attempt == attempts - 1:
                kept = f"{_size(part):,} bytes are kept; call again to go on from there"
                raise ConnectionError(f"{url}: {error}. {kept}") from None
        time.sleep(wait * 2**attempt)
    try:
        _check(part, sha256, "was received, but")
    except ValueError:
        part.unlink()
        raise
    return part.replace(path)


def _receive(url: str, part: Path) -> None:
    """Appends what is missing of a file."""
    start = _size(part)
    headers = {"User-Agent": "spdlib"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=60)
    except HTTPError as error:
        if error.code == 416 and start:  # nothing lies beyond: the digest tells if it is whole
            return
        raise
    with response:
        start = start if response.status == 206 else 0  # a server may not know ranges
        missing = int(response.headers.get("Content-Length", 0))
        need_room(part.parent, missing)
        with (
            open(part, "ab" if start else "wb") as file,
            Bar(round((start + missing) / 1e6), part.stem, "MB") as bar,
        ):
            while block := response.read(CHUNK):
                file.write(block)
                bar.update(round(file.tell() / 1e6) - bar.count)
    if missing and _size(part) != start + missing:
        raise ConnectionError("the connection broke off")


def _check(path: Path, sha256: str, what: str) -> None:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256.lower():
        name = path.name.removesuffix(".part")
        raise ValueError(f"{name} {what} its SHA-256 is {digest}, not {sha256}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def unpack(archive: str | Path, folder: str | Path, sha256: str) -> Path:
    """Unpacks a tar archive into a new folder, all of it or nothing.

    Args:
        archive: The archive, compressed or not.
        folder: Folder for its content; it must not hold anything.
        sha256: The archive's digest, noted in the folder for :func:`is_unpacked`.

    Returns:
        ``folder``.

    Raises:
        ValueError: A member would land outside the folder, is a device or a link that leads
            outside; or the archive is damaged. Nothing is left then.
        OSError: The folder holds something, or the disk has not enough room.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        with whole_folder(folder) as beside, tarfile.open(archive) as tar:
            members = tar.getmembers()
            need_room(folder.parent, sum(member.size for member in members))
            told = track(members, f"unpacking {archive.name}", "files")
            tar.extractall(beside, told, filter="data")
            (beside / MARKER).write_text(f"{sha256} {_count(beside)}")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive}: damaged or unsafe ({error})") from None
    return folder


def is_unpacked(folder: str | Path, sha256: str) -> bool:
    """Whether :func:`unpack` has filled a folder from this archive, and all its files are there."""
    marker = Path(folder) / MARKER
    digest, count = marker.read_text().split() if marker.is_file() else ("", "0")
    return digest == sha256 and _count(Path(folder)) >= int(count)


def _count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*") if path.name != MARKER)
