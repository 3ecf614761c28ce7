"""What only notebooks use: running and publishing them, their parameters, figures and explorers.

    python -m spdlib.notebooks run [NAME ...] [-p NAME VALUE ...]
    python -m spdlib.notebooks publish

Nothing else in spdlib imports from here.
"""

from spdlib.notebooks.run import (
    COLOUR_CODES,
    clean,
    digest,
    errors,
    execute,
    find,
    main,
    publish,
    versions,
)

__all__ = [
    "COLOUR_CODES",
    "clean",
    "digest",
    "errors",
    "execute",
    "find",
    "main",
    "publish",
    "versions",
]
