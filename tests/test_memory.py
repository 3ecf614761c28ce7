"""Memory stays with the process inside the block, and leaves it afterwards."""

import resource

import psutil
import pytest
import torch

from spdlib import memory
from spdlib.memory import kept

MEGABYTES = 100


def faults():
    """Pages that the system had to provide while a block is taken and freed ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(MEGABYTES * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")
def test_freed_memory_is_used_again_and_then_given_back():
    pages = 10 * MEGABYTES * 2**20 // resource.getpagesize()
    # Large pages make faults fewer: compare, do not count.
    outside = faults()
    before = psutil.Process().memory_info().rss
    with kept():
        faults()
        inside = faults()
        held = psutil.Process().memory_info().rss
    after = psutil.Process().memory_info().rss
    assert inside < outside / 5 and outside <= pages * 1.1
    assert held - before > 0.8 * MEGABYTES * 2**20
    assert after - before < 0.2 * MEGABYTES * 2**20
    assert faults() > outside / 2


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with kept():
        assert torch.ones(3).sum() == 3
