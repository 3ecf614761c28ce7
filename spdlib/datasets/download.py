"""Fetching a large archive so that nothing is fetched twice, and unpacking it.

A download that breaks goes on where it stopped, now or at the next call. What arrives is used
only if its SHA-256 is the expected one. Nothing is unpacked outside its folder or by half.
"""

import hashlib
import http.client
import json
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from spdlib.paths import need_room, whole_folder
from spdlib.progress import Bar, track

CHUNK = 1 << 20
MARKER = ".unpacked.json"


def fetch(url: str, path: str | Path, sha256: str, attempts: int = 5, wait: float = 1.0) -> Path:
    """Downloads a file, unless it is there already.

    Until it is whole and checked it lies beside, under a name that ends in ``.part``.

    Args:
        url: Where it is, http or https.
        path: Where it goes.
        sha256: Hexadecimal digest that it must have.
        attempts: How often in a row a connection may break with nothing received.
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
    failed = 0
    while True:
        before = _size(part)
        try:
            if _receive(url, part, path.name):
                break
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise ConnectionError(f"{url}: {error}") from None
            reason = str(error)
        except (http.client.HTTPException, urllib.error.URLError, ConnectionError) as error:
            reason = str(error)
        except TimeoutError:
            reason = "no answer in time"
        failed = 0 if _size(part) > before else failed + 1
        if failed >= attempts:
            raise ConnectionError(
                f"{url}: {reason}. {_size(part):,} bytes are kept; call again to go on from there"
            )
        time.sleep(wait * 2 ** max(0, failed - 1))
    try:
        _check(part, sha256, "was received, but")
    except ValueError:
        part.unlink()
        raise
    return part.replace(path)


def _receive(url: str, part: Path, name: str) -> bool:
    """Appends what is missing of a file; whether it is whole now."""
    start = _size(part)
    headers = {"User-Agent": "spdlib", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing lies beyond: it is whole, or not the file that was begun. The digest tells.
        if error.headers.get("Content-Range", "").endswith(f"/{start}"):
            return True
        part.unlink()
        return False
    with response:
        resumed = response.status == 206
        if resumed and not response.headers["Content-Range"].startswith(f"bytes {start}-"):
            raise ConnectionError(f"asked for bytes from {start}, got another range")
        start = start if resumed else 0
        length = response.headers["Content-Length"]
        total = start + int(length) if length else None
        need_room(part.parent, (total or 0) - start)
        with (
            open(part, "ab" if resumed else "wb") as file,
            Bar(round((total or 0) / 1e6), name, "MB") as bar,
        ):
            bar.update(round(start / 1e6))
            while block := response.read(CHUNK):
                file.write(block)
                start += len(block)
                bar.update(round(start / 1e6) - bar.count)
    return total is None or start == total


def _check(path: Path, sha256: str, what: str) -> None:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256.lower():
        raise ValueError(
            f"{path.name.removesuffix('.part')} {what} its SHA-256 is {digest}, not {sha256}"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def unpack(archive: str | Path, folder: str | Path, sha256: str) -> Path:
    """Unpacks a tar archive into a new folder, all of it or nothing.

    Args:
        archive: The archive, compressed or not.
        folder: Where its content goes; it must not hold anything.
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
            for member in track(members, f"unpacking {archive.name}", "files"):
                tar.extract(member, beside, filter="data")
            marker = {"sha256": sha256, "files": _count(beside)}
            (beside / MARKER).write_text(json.dumps(marker))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive}: damaged or unsafe ({error})") from None
    return folder


def is_unpacked(folder: str | Path, sha256: str) -> bool:
    """Whether :func:`unpack` has filled a folder from this archive, and all its files are there."""
    try:
        marker = json.loads((Path(folder) / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return marker["sha256"] == sha256 and _count(Path(folder)) >= marker["files"]


def _count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*") if path.name != MARKER)
