"""Memory stays with the process inside the block, and leaves it afterwards."""

import subprocess
import sys

import pytest
import torch

from spdlib import memory
from spdlib.memory import kept

# In a process of its own: what other tests have freed would be taken first.
ALONE = """
import resource, psutil, torch
from spdlib.memory import kept

MEGABYTES = 100

def faults():  # pages that the system had to provide while a block is taken and freed ten times
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(MEGABYTES * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

# Large pages make faults fewer: compare, do not count.
pages = 10 * MEGABYTES * 2**20 // resource.getpagesize()
outside = faults()
before = psutil.Process().memory_info().rss
with kept():
    faults()
    inside = faults()
    held = psutil.Process().memory_info().rss
after = psutil.Process().memory_info().rss
assert inside < outside / 5 and outside <= pages * 1.1, (inside, outside, pages)
assert held - before > 0.8 * MEGABYTES * 2**20, (held, before)
assert after - before < 0.2 * MEGABYTES * 2**20, (after, before)
assert faults() > outside / 2
"""


@pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")
def test_freed_memory_is_used_again_and_then_given_back():
    ended = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with kept():
        assert torch.ones(3).sum() == 3
