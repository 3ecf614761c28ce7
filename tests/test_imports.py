"""Imports that stay light: what a module does not need is not loaded with it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("spdlib", ["numpy", "torch"]),
        ("spdlib.metrics", ["torch", "matplotlib"]),
        ("spdlib.architectures", ["torch", "timm"]),
        ("spdlib.datasets", ["timm", "lightly", "pytorch_lightning", "matplotlib"]),
        ("spdlib.notebooks", ["nbformat", "torch"]),
        ("spdlib.sweep", ["torch", "papermill", "distributed"]),
    ],
)
def test_a_module_loads_no_more_than_it_needs(module, absent):
    code = f"import sys, {module}; print(*sorted(set({absent}) & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == []
