"""Tools of notebooks alone: running and publishing them, parameters, figures and explorers.

    python -m spdlib.notebooks run [NAME ...] [--dataset PATH] [-p NAME VALUE ...]
    python -m spdlib.notebooks publish

Nothing else in spdlib imports from here.
"""

from spdlib.execution import clean, digest, errors, execute, find
from spdlib.notebooks.run import main, publish, versions

__all__ = ["clean", "digest", "errors", "execute", "find", "main", "publish", "versions"]
