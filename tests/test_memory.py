"""Memory stays with the process inside the block, and leaves it afterwards."""

import subprocess
import sys

import pytest
import torch

from spdlib.pretraining import memory
from spdlib.pretraining.memory import kept

# In a process of its own: what other tests have freed would be taken first.
ALONE = """
import psutil, torch
from spdlib.pretraining.memory import kept

MEGABYTES = 100

def held():  # of this memory, what the process still has after taking and freeing it ten times
    before = psutil.Process().memory_info().rss
    for _ in range(10):
        torch.ones(MEGABYTES * 2**18)
    return (psutil.Process().memory_info().rss - before) / (MEGABYTES * 2**20)

outside = held()
before = psutil.Process().memory_info().rss
with kept():
    inside = held()
after = (psutil.Process().memory_info().rss - before) / (MEGABYTES * 2**20)
assert outside < 0.2, outside
assert 0.8 < inside < 3, inside  # kept, and taken again: ten blocks would be 10
assert after < 0.2, after
"""


@pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")
def test_freed_memory_is_used_again_and_then_given_back():
    ended = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with kept():
        assert torch.ones(3).sum() == 3
