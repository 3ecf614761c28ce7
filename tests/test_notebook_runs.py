"""Every notebook runs, small, as a user runs it: through papermill, with and without explorers.

Where there is a browser, all but one run there (``test_browser.py``).

The notebooks write into a folder of the test's own; 02 is run first for those that read what
it writes.
"""

import os
import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from notebook_files import CHROMIUM, DRIVER, write_notebook
from PIL import Image

from spdlib import execution, notebooks, paths
from spdlib.notebooks import run

# A minute at most each, on two cores. Everything else stays at its default.
TINY = {
    "01_smoothblend": {"images": 4, "draws": 40, "size": 96},
    "02_spd_pretraining": {
        "size": 32,
        "epochs": 1,
        "batch_size": 16,
        "train_images": 64,
        "test_images": 40,
        "collapse_epochs": 1,
    },
    "03_padim_evaluation": {
        "categories": ["mono"],
        "size": 96,
        "n_features": 20,
        "train_images": 12,
        "test_images": 10,
        "repeats": 20,
    },
    "04_auroc_vs_aupr": {"train_images": 30, "test_images": 12, "size": 96, "repeats": 20},
    "05_gradcam_attention": {"normal_images": 12, "test_images": 8, "size": 64},
    "06_two_class": {
        "encoders": ["imagenet", "simsiam_spd"],
        "shots": [2, 5],
        "draws": 2,
        "most_images": 60,
        "normal_images": 10,
        "feature_size": 64,
        "size": 32,
        "iterations": 2,
        "repeats": 20,
    },
    "07_paper_comparison": {},
}
READS_ENCODERS = ("03_padim_evaluation", "05_gradcam_attention", "06_two_class")
ALL = execution.find()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def execute(runs):
    """Executes a notebook once for each setting; what it needs first, before."""
    done = {}

    def run(path, interactive):
        if path.stem in READS_ENCODERS:
            (pretraining,) = execution.find(["02"])
            run(pretraining, interactive=True)
        key = (path.stem, interactive)
        if key not in done:
            parameters = TINY[path.stem] | {"interactive": interactive}
            output = runs / f"{path.stem}_{interactive}.ipynb"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SPDLIB_RUNS", str(runs))
                done[key] = execution.execute(path, output, parameters)
        return done[key]

    return run


# Without explorers, a notebook's last cells do nothing; one, which has two, shows it.
HERE = [path for path in ALL if path.stem[:2] == "04" or not (CHROMIUM and DRIVER)]
CASES = [(path, True) for path in HERE] + [(path, False) for path in ALL if path.stem[:2] == "04"]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "interactive"), CASES, ids=[f"{p.stem}-{on}" for p, on in CASES])
def test_runs_without_an_error_anywhere(path, interactive, execute, runs):
    nb = execute(path, interactive)
    explorers = [
        output
        for cell in nb.cells
        for output in cell.get("outputs", ())
        if "an explorer" in output.get("data", {}).get("text/plain", "")
    ]
    assert bool(explorers) == interactive
    assert (runs / f"{path.stem}_{interactive}.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", READS_ENCODERS)
def test_opened_alone_it_says_what_to_run_first(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_RUNS", str(tmp_path))
    with pytest.raises(RuntimeError, match="run notebook 02_spd_pretraining first"):
        execution.execute(*execution.find([name]), tmp_path / "alone.ipynb")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["-p", "sead", "1"], "sead: unknown parameter; did you mean 'seed'?"),
        (["-p", "interactive", "true"], "interactive: 'true' is text, not True or False"),
    ],
    ids=["misspelt", "text for a flag"],
)
def test_papermills_command_line_stops_at_a_bad_parameter(given, message, tmp_path):
    (path,) = execution.find(["02"])
    output = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(path), str(output), *given]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert message in re.sub(r"\x1b\[[0-9;]*m", "", ended.stderr)
    ran = [
        cell for cell in nbformat.read(output, as_version=4).cells if cell.get("execution_count")
    ]
    assert len(ran) <= 3  # the parameters, those injected, and the check: no work was started


def test_errors_inside_widgets_are_found():
    nb = nbformat.v4.new_notebook()
    failed = {"output_type": "error", "ename": "ValueError", "evalue": "swallowed", "traceback": []}
    nb.metadata["widgets"] = {
        "application/vnd.jupyter.widget-state+json": {
            "state": {"1": {"state": {"outputs": [failed]}}, "2": {"state": {"outputs": []}}}
        }
    }
    assert execution.errors(nb) == ["a widget: ValueError: swallowed"]


@pytest.mark.slow
def test_an_error_inside_an_explorer_fails_the_run(tmp_path):
    source = (
        "from spdlib.notebooks.explorers.explorer import explorer\n"
        "import ipywidgets\n"
        "slider = ipywidgets.IntSlider(1)\n"
        "box = explorer({'x': slider}, lambda x: bytes([1 // x]))\n"
        "slider.value = 0\n"
        "box"
    )
    notebook = write_notebook(tmp_path / "in.ipynb", source)
    with pytest.raises(RuntimeError, match="a widget: ZeroDivisionError"):
        execution.execute(notebook, tmp_path / "out.ipynb")


LOOKS = 'dataset: str = "elpv"\ncategories: list = None\nsize: int = 64\n'
READS = 'dataset: str = "elpv"\ntable: int = 7\n'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two notebooks, beside a data set; what is executed is only noted."""
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks" / "03_looks.ipynb", "1", parameters=LOOKS)
    write_notebook(tmp_path / "notebooks" / "07_reads.ipynb", "1", parameters=READS)
    for name in ("parts #1", "no", "elpv"):
        for kind in ("normal", "anomaly"):
            (tmp_path / name / kind).mkdir(parents=True)
            for number in range(3):
                pixels = np.full((40, 40), 50 * number + len(kind), np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / kind / f"{number}.png")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.delenv("SPDLIB_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    executed = []
    monkeypatch.setattr(
        execution, "execute", lambda path, output, given, log: executed.append((output, given))
    )
    return executed


def test_every_notebook_gets_what_it_declares_of_a_data_set(project, tmp_path):
    assert notebooks.main(["run", "--dataset", "parts #1"]) == 0
    place = str(tmp_path / "parts #1")
    runs = tmp_path / "runs" / "parts #1"
    assert project == [
        (runs / "03_looks.ipynb", {"categories": None, "dataset": place}),
        (runs / "07_reads.ipynb", {"dataset": place}),
    ]


def test_a_known_name_stays_one_beside_a_folder_that_is_called_so(project, tmp_path):
    assert run.main(["run", "03", "--dataset", "elpv", "--categories", "mono"]) == 0
    output, given = project[0]
    assert output == tmp_path / "runs" / "03_looks.ipynb"
    assert given == {"dataset": "elpv", "categories": ["mono"]}


def test_a_parameter_goes_to_the_notebooks_that_have_it(project, tmp_path):
    assert run.main(["run", "-p", "dataset", "no", "-p", "size", "96"]) == 0
    assert [given for _, given in project] == [{"dataset": "no", "size": 96}, {"dataset": "no"}]
    assert project[0][0] == tmp_path / "runs" / "no" / "03_looks.ipynb"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--dataset", "nowhere"], "'nowhere': neither a known name nor a folder"),
        (["--dataset", "parts #1", "--categories", "nuts"], "nuts"),
        (["07", "-p", "size", "96"], "size: unknown parameter"),
        (["-p", "tabel", "8"], "tabel: unknown parameter; did you mean 'table'?"),
        (["-p", "size", "[1"], "size: input should be a valid integer, unable to parse"),
        (["-p", "categories", "mono"], "categories: input should be a valid list, not 'mono'"),
        (["99"], "no notebook '99'"),
    ],
)
def test_what_cannot_run_is_said_before_anything_does(given, message, project, capsys):
    assert run.main(["run", *given]) == 1
    assert message in capsys.readouterr().err
    assert not project


def test_names_that_are_no_utf8_and_braces_reach_the_kernel(tmp_path):
    source = "import os\nprint(os.path.exists(dataset), len(dataset))"
    notebook = write_notebook(tmp_path / "{in}.ipynb", source, parameters="dataset: str = None")
    odd = tmp_path / os.fsdecode(b"Pr\xfcf'\"{ling} #1\n")
    odd.touch()
    output = tmp_path / "runs {dataset}" / "out.ipynb"
    nb = execution.execute(notebook, output, {"dataset": str(odd)})
    assert nb.cells[-1].outputs[0].text == f"True {len(str(odd))}\n"
    assert output.is_file() and output.with_suffix(".html").is_file()


def test_a_failing_notebook_stops_the_run_and_is_there_to_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPDLIB_RUNS", str(tmp_path / "runs"))
    bad = write_notebook(tmp_path / "a.ipynb", "print('so far')", "1 / 0", parameters="x: int = 1")
    assert run.main(["run", "--verbose", str(bad), str(bad), "-p", "x", "2"]) == 1
    told = capsys.readouterr()
    assert "so far" in told.out
    assert told.err == (
        "failed: cell 4: ZeroDivisionError: division by zero\n      see runs/a.html\n"
    )
    assert "so far" in (tmp_path / "runs" / "a.html").read_text()
