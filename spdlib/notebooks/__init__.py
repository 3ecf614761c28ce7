"""Tools of notebooks alone: running and publishing them, parameters, figures and explorers.

    python -m spdlib.notebooks run [NAME ...] [--dataset PATH] [-p NAME VALUE ...]
    python -m spdlib.notebooks publish

Nothing else in spdlib imports from here.
"""

import sys
from importlib.metadata import version
from typing import Any

# Kept to what changes results; the rest is in environment.yml.
PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "lightly", "numpy", "pandas")


def versions() -> None:
    """Prints the versions that made a notebook's results, in one line."""
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"python {python}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))


def __getattr__(name: str) -> Any:
    """``main`` and ``publish``, loaded when they are asked for: a notebook needs neither."""
    if name not in ("main", "publish"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spdlib.notebooks import run

    return getattr(run, name)
