"""Checkpoints that are whole or not there, and that cannot run code when they are read.

When one is written, :mod:`spdlib.loop` decides.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from spdlib.paths import clear, need_room, replacing, show

LAST = "last.ckpt"


def save(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Writes a checkpoint; whoever is killed meanwhile leaves the one before."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint; nothing but tensors and plain types is unpickled.

    Raises:
        ValueError: The file is damaged, or holds something else.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return {
            name: checkpoint[name]
            for name in ("about", "step", "state", "model", "optimizer", "scaler")
        }
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{show(path)} is not a checkpoint of a training ({reason})") from None


def prepare(folder: str | Path, needed: int, names: Sequence[str] = (LAST,)) -> Path:
    """Makes a folder for checkpoints and sees that they can be written, before any work.

    What a killed process left half-written there is removed.

    Args:
        folder: Folder of the checkpoints.
        needed: Bytes that must be free.
        names: Names of the files that are written there.

    Raises:
        OSError: The folder cannot be made or written, or the disk has too little room.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            clear(folder / name)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"room?")
    except OSError as error:
        raise OSError(f"{show(folder)}: cannot be written ({error.strerror})") from None
    need_room(folder, needed)
    return folder


def match(theirs: dict[str, Any], ours: dict[str, Any], folder: Path) -> None:
    """Refuses to go on from a checkpoint of another training.

    Args:
        theirs: What the checkpoint says that its training is.
        ours: The same of the training that is to go on.
        folder: Folder that the checkpoint lies in.

    Raises:
        ValueError: They differ; names the settings, and what to do.
    """
    parts = [name for name, now in ours.items() if theirs.get(name) != now]
    if not parts:
        return
    differing = []
    for part in parts:
        value, now = theirs.get(part), ours[part]
        if isinstance(value, dict):
            differing += [(k, value.get(k), now[k]) for k in now if value.get(k) != now[k]]
        else:
            differing.append((part, value, now))
    lines = "\n  ".join(f"{name}: {value!r} there, {now!r} here" for name, value, now in differing)
    raise ValueError(
        f"{show(folder)} holds a checkpoint of another training, with other {', '.join(parts)}; "
        f"take another folder, or start over with resume=False (--no-resume):\n  {lines}"
    )
