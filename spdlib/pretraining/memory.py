"""Memory that a training step frees and at once needs again stays with the process.

glibc maps every large block afresh and gives it back when it is freed. A training step on a CPU
frees and takes gigabytes of activations, and the system zeroes each of their pages again: up to
a quarter of the step's time (EfficientNet-Lite0, views of 96 pixels, one thread).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 65536


@contextmanager
def kept() -> Iterator[None]:
    """Keeps freed memory while the block runs, then gives it back.

    Address space that lay between blocks still in use stays with the heap: later blocks that
    fit into it are taken from there, and their memory stays until the next trim.
    Where the C library is not glibc (macOS, Windows, musl) it does nothing.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
        libc.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except (OSError, TypeError):
        return None
