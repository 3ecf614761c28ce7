"""spdlib as a plain package: a wheel in a fresh environment, used from an empty folder."""

import os
import subprocess
import sys
import sysconfig
import venv

import pytest

from spdlib import paths

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs Python of an environment that has the wheel; its other packages are the tests' own."""
    folder = tmp_path_factory.mktemp("installed")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    source = folder / "source"  # a build writes beside its sources
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "data", "spdlib"):
        (source / name).symlink_to(paths.root() / name)
    subprocess.run([*pip, *build, str(source)], check=True, timeout=600)
    venv.create(folder / "environment", symlinks=True)
    python = folder / "environment" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--quiet", "--no-deps", wheel], check=True)
    (packages,) = (folder / "environment").glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty = folder / "empty"
    empty.mkdir()
    names = "PYTHONPATH", "SPDLIB_RUNS", "SPDLIB_DATA"
    environment = {name: value for name, value in os.environ.items() if name not in names}

    def run(*command):
        return subprocess.run(
            [python, *command], cwd=empty, env=environment, capture_output=True, text=True,
            timeout=600,
        )  # fmt: skip

    return run


WORKS = {
    "import": ("-c", "import spdlib, os; assert os.getcwd() not in spdlib.__file__"),
    "pretraining": ("-m", "spdlib.pretraining", "--help"),
    "sweep": ("-m", "spdlib.sweep", "--help"),
    "metrics": ("-m", "spdlib.metrics", "--help"),
    "data sets": ("-c", "from spdlib.datasets import load; assert len(load('elpv')) > 2000"),
    "the paper's tables": ("-c", "from spdlib import paper; assert len(paper.tidy()) == 768"),
    "painted": ("-c", "from spdlib.datasets import load; load('elpv_painted', ['mono'])"),
}
SAYS = {
    "notebooks": (("-m", "spdlib.notebooks", "run", "03"), "work in a checkout"),
    "sweep": (("-m", "spdlib.sweep", "03"), "work in a checkout"),
    "visa": (("-c", "from spdlib.datasets import load; load('visa')"), "download_visa"),
}


@pytest.mark.parametrize("name", WORKS)
def test_it_works_without_a_checkout(name, run):
    ended = run(*WORKS[name])
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", SAYS)
def test_what_needs_a_checkout_or_a_download_says_so_in_one_line(name, run):
    command, message = SAYS[name]
    ended = run(*command)
    assert ended.returncode != 0
    assert message in ended.stderr.strip().splitlines()[-1]
