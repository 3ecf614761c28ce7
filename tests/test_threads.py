"""How threads wait is set before torch is loaded, and never over a user's own setting."""

import os
import subprocess
import sys

import pytest

NAMES = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
SHOW = f"import os, spdlib; print(*(os.environ.get(n) for n in {NAMES}))"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "4000 None"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
    ],
)
def test_it_is_set_where_the_user_says_nothing(given, found):
    environment = {n: value for n, value in os.environ.items() if n not in NAMES} | given
    command = [sys.executable, "-c", SHOW]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == found.split()


def test_the_library_itself_loads_no_torch():
    command = [sys.executable, "-c", "import sys, spdlib; assert 'torch' not in sys.modules"]
    subprocess.run(command, check=True, timeout=60)
