"""Every command that the documents give is run somewhere; every piece of Python in them runs.

A document's shell blocks are read line by line. Each command has an entry in ``COMMANDS`` that
says where it is run: here, as it stands or small, by a test, or by ``.ci/run``. One that has none
fails, and so does an entry that no document uses any more.
"""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import yaml
from PIL import Image
from safetensors.torch import load_file

from spdlib import execution, paths, sweep
from spdlib.encoders import load_encoder, save_encoder
from spdlib.execution import find
from spdlib.pretraining import cli as pretraining

ROOT = paths.root()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md",
             *sorted((ROOT / "docs").rglob("*.md"))]  # fmt: skip
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`((?:make|python) [^`]+)`")
BIN = Path(sys.executable).parent
# `make` as the documents give it, without installing anew.
MADE = f"make READY= BIN={shlex.quote(str(BIN))} NOTEBOOKS=07"
LINES = MADE.replace("07", "01") + ' run DATASET=lines CATEGORIES="a b"'

# By command: a command that this file runs in an empty folder; a test; or CI.
CI = ".ci/run"
SCALE = (
    "python ROOT/benchmarks/scale.py --repeats 1 --million-pixels 0.1 --gpu-tflops 150 "
    "--methods supervised --encoders"
)
# Benchmarks of minutes, some with peers that tests do not install.
PEERS = {
    f"python benchmarks/{name}": f"python ROOT/benchmarks/{name.split()[0]} --help"
    for name in ("metrics.py", "padim.py", "smoothblend.py",
                 "pretraining.py --batch 64 --size 64 --steps 12",
                 "pretraining.py --pipeline --workers 14 --encoder resnet50 --batch 256 --size 224 "
                 "--steps 6")
}  # fmt: skip
COMMANDS = {
    "make run": MADE + " run",
    "make test": CI,
    "make lab": "tests/test_browser.py::test_opening_leaves_a_notebook_as_it_is",
    "make site": CI,
    "make lint": CI,
    "make help": MADE + " help",
    "make format": MADE + " --dry-run format",
    "make run publish": MADE + " --dry-run run publish",
    "make run DATASET=path/to/parts": LINES,
    'make run DATASET=path/to/lines CATEGORIES="a b"': LINES,
    ". .venv/bin/activate": f". {shlex.quote(str(BIN))}/activate",
    "python -m spdlib.notebooks run 01 -p images 30": "tests/test_notebook_runs.py::"
    "test_runs_without_an_error_anywhere",
    "python -m spdlib.notebooks run 02": "tests/test_notebook_runs.py::"
    "test_runs_without_an_error_anywhere",
    "python -m spdlib.notebooks run 03 -p seed 1": "tests/test_notebook_runs.py::"
    "test_a_parameter_goes_to_the_notebooks_that_have_it",
    "papermill notebooks/02_spd_pretraining.ipynb runs/eta0.1.ipynb -p eta 0.1 -p interactive "
    "False": "papermill ROOT/notebooks/07_paper_comparison.ipynb table8.ipynb -p table 8 "
    "-p interactive False",
    "python -m spdlib.sweep 03 -p seed '[0, 1, 2]' -j 2": "python -m spdlib.sweep 07 "
    "-p seed '[0, 1]' -j 2",
    "python -m spdlib.metrics MAPS MASKS --json measured.json": "python -m spdlib.metrics maps "
    "masks --json measured.json",
    'python -c "from spdlib.datasets import download_visa; download_visa()"': "tests/"
    "test_download.py",
    "python -m spdlib.notebooks run 07 --dataset visa": "tests/test_notebook_runs.py::"
    "test_every_notebook_gets_what_it_declares_of_a_data_set",
    "python benchmarks/attention.py": "python ROOT/benchmarks/attention.py --rounds 1 --batch 2",
    "python benchmarks/busy.py": "python ROOT/benchmarks/busy.py --settings '' "
    "--rounds 1 --at-once 1 --times 1",
    **PEERS,
    "python benchmarks/scale.py": SCALE,
    "python benchmarks/scale.py --encoders resnet50": SCALE,
    "python benchmarks/scale.py --gpu-tflops 150": SCALE,
    "python benchmarks/scale.py --device cuda --batch 64 --encoders efficientnet_lite0 resnet18 "
    "resnet50": SCALE,  # without a GPU, on the CPU
}


def blocks(language):
    """The blocks of the documents that are marked so."""
    for path in DOCUMENTS:
        for kind, text in BLOCK.findall(path.read_text(encoding="utf-8")):
            if kind in language:
                yield text


def commands():
    """Each command of the documents, on one line, without comments."""
    for text in blocks(("sh", "bash")):
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            if plain := re.sub(r"(^|\s+)#.*", "", line).strip():
                yield " ".join(plain.split())
    for path in DOCUMENTS:
        prose = BLOCK.sub("", path.read_text(encoding="utf-8"))
        yield from (" ".join(text.split()) for text in INLINE.findall(prose))


def trainings():
    return [text for text in commands() if "spdlib.pretraining" in text]


def sweeps_of_a_file():
    return [text for text in commands() if "-g visa.yaml" in text]


def test_every_command_is_run_somewhere():
    given = set(commands()) - {*trainings(), *sweeps_of_a_file()}
    own = {text for text in given if text.startswith("python studies/")}
    assert given - own == set(COMMANDS), "say in COMMANDS where it is run"
    assert trainings() and sweeps_of_a_file()
    for command, where in COMMANDS.items():
        assert where != CI or command in (ROOT / CI).read_text(encoding="utf-8")
        name, _, test = where.partition("::")
        if name.startswith("tests/"):
            assert f"def {test}" in (ROOT / name).read_text(encoding="utf-8")


def test_each_notebook_has_its_row_with_picture_question_and_time():
    table = re.findall(r"^\| \[!\[\]\((.*?)\)\]\((.*?)\) \| \[(.*?)\]\((.*?)\) \| (.*?) \|",
                       (ROOT / "README.md").read_text(encoding="utf-8"), re.M)  # fmt: skip
    assert [row[1] for row in table] == [f"notebooks/{path.name}" for path in find()]
    for picture, notebook, question, again, time in table:
        assert (ROOT / picture).is_file() and notebook == again
        assert question.endswith("?") and re.fullmatch(r"\d+ (s|min)", time)


def test_the_studies_take_the_commands_as_they_stand(monkeypatch):
    """Parsed, as far as they are commands; the reports are made in test_study.py."""
    monkeypatch.syspath_prepend(ROOT / "studies")
    scripts = {f"studies/{n}.py": importlib.import_module(n) for n in ("does_spd_help", "longer")}
    own = {text for text in commands() if re.match(r"python studies/\S+ ", text)}
    assert len(own) >= 4
    for _, script, *words in map(shlex.split, own):
        arms = list(scripts[script].ARMS)
        assert scripts["studies/does_spd_help.py"].parser("", arms).parse_args(words).command


@pytest.mark.parametrize("text", trainings())
def test_pretraining_takes_the_commands_as_they_stand(text, monkeypatch):
    """Parsed and chosen by the same code; nothing is trained."""
    chosen = {}
    monkeypatch.setattr(pretraining, "_run", lambda settings, **more: chosen.update(settings))
    monkeypatch.setattr(pretraining, "place", lambda: True)  # as if it were one of several
    given = shlex.split(text.partition("spdlib.pretraining ")[2])
    assert pretraining.main(given) == 0
    assert chosen["dataset"] in text and f"--eta {chosen['eta']:g}" in text


def test_the_sweep_takes_the_grid_as_it_stands(tmp_path, monkeypatch):
    (grid,) = [text for text in blocks(("yaml",)) if "# visa.yaml" in text]
    (tmp_path / "visa.yaml").write_text(grid)
    planned = sweep.plan(find(["03"])[0], sweep.load(tmp_path / "visa.yaml"))
    assert len(planned) == 36 and len(yaml.safe_load(grid)["categories"]) == 12
    monkeypatch.chdir(tmp_path)
    for text in sweeps_of_a_file():
        parsed = sweep._parser().parse_args(shlex.split(text)[3:])
        assert Path(parsed.notebook).name == "03_padim_evaluation.ipynb"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the commands read: images, maps, masks."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    for home in ("lines/a", "lines/b"):
        for kind in ("normal", "anomaly"):
            (folder / home / kind).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(folder / home / kind / f"{number}.png")
    for name in ("maps", "masks"):
        (folder / name).mkdir()
        for number in range(4):
            pixels = np.zeros((32, 32), np.uint8)
            pixels[4:9, 4 : 9 + number] = 255 * (number % 2 or name == "maps")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def small():
    homes = ("tests/", CI)
    return {text for text in COMMANDS.values() if not text.startswith(homes)}


@pytest.mark.slow
@pytest.mark.parametrize("text", sorted(small()))
def test_it_runs(text, place):
    text = text.replace("ROOT", str(ROOT))
    if text.startswith("make"):
        text = text.replace("DATASET=", f"DATASET={place}/")
        text = text.replace("make", f"make -C {shlex.quote(str(ROOT))}", 1)
    environment = os.environ | {"SPDLIB_RUNS": str(place / "runs"), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    ended = subprocess.run(
        text, shell=True, cwd=place, env=environment, capture_output=True, text=True, timeout=600
    )
    if "benchmarks" in text and "No module named" in ended.stderr:
        pytest.skip(ended.stderr.splitlines()[-1])
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """A working folder with weight files as pretraining leaves them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "encoders").mkdir(parents=True)
    save_encoder(load_encoder("efficientnet_lite0"), "runs/encoders/simsiam_spd.safetensors")
    save_encoder(load_encoder("resnet18"), "resnet18.safetensors")


PIECES = [*blocks(("python",))]


@pytest.mark.slow
@pytest.mark.parametrize("text", PIECES, ids=[text.split("\n")[-2][:40] for text in PIECES])
def test_python_runs(text, pretrained):
    if "anomalib" in text:
        pytest.importorskip("anomalib")
    if "path/to" in text:
        text = text.replace('table = load("visa", ["pcb1", "pcb2"])\n', "")  # a download
    exec(compile(text, "README.md", "exec"), {})


def test_what_anomalib_builds_takes_the_weights(pretrained):
    """Its extractor of features is timm's, made like this."""
    extractor = timm.create_model("resnet18", features_only=True, out_indices=[1, 2, 3])
    missing, more = extractor.load_state_dict(load_file("resnet18.safetensors"), strict=False)
    assert not missing and all(name.startswith("layer4") for name in more)


def test_the_readme_is_short_and_its_links_and_pictures_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            assert ":" in link or (path.parent / link).exists(), f"{path.name}: {link}"
    size = sum(path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir())
    assert size < 300_000
    assert {path.name for path in execution.find()} <= set(re.findall(r"[\w]+\.ipynb", text))


def test_the_pictures_are_of_the_notebooks_as_they_are():
    """Made anew they are the same, pixel for pixel."""
    command = [sys.executable, "docs/pictures.py", "--check"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
