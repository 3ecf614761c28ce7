"""Every notebook runs, small, as a user runs it: through papermill, with and without explorers.

The notebooks write into a folder of the test's own; 02 is run first for those that read what
it writes.
"""

import re
import subprocess
import sys

import nbformat
import pytest

from spdlib import notebooks

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
    "05_gradcam_attention": {
        "normal_images": 12,
        "painted_images": 8,
        "defective_images": 6,
        "size": 64,
    },
    "06_two_class": {
        "encoders": ["imagenet", "simsiam_spd"],
        "shots": [2, 5],
        "draws": 2,
        "most_images": 60,
        "normal_images": 10,
        "size": 32,
        "iterations": 2,
        "repeats": 20,
    },
    "07_paper_comparison": {},
}
READS_ENCODERS = ("03_padim_evaluation", "05_gradcam_attention", "06_two_class")
ALL = notebooks.find()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def execute(runs):
    """Executes a notebook once for each setting; what it needs first, before."""
    done = {}

    def run(path, interactive):
        if path.stem in READS_ENCODERS:
            (pretraining,) = notebooks.find(["02"])
            run(pretraining, interactive=False)
        key = (path.stem, interactive)
        if key not in done:
            parameters = TINY[path.stem] | {"interactive": interactive}
            output = runs / f"{path.stem}_{interactive}.ipynb"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SPDLIB_RUNS", str(runs))
                done[key] = notebooks.execute(path, output, parameters)
        return done[key]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("interactive", [False, True], ids=["batch", "interactive"])
@pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])
def test_runs_without_an_error_anywhere(path, interactive, execute, runs):
    nb = execute(path, interactive)
    explorers = [
        output
        for cell in nb.cells
        for output in cell.get("outputs", ())
        if "an explorer" in output.get("data", {}).get("text/plain", "")
    ]
    if not interactive:
        assert not explorers
    assert (runs / f"{path.stem}_{interactive}.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", READS_ENCODERS)
def test_opened_alone_it_says_what_to_run_first(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_RUNS", str(tmp_path))
    with pytest.raises(RuntimeError, match="run notebook 02_spd_pretraining first"):
        notebooks.execute(*notebooks.find([name]), tmp_path / "alone.ipynb")


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
    (path,) = notebooks.find(["02"])
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
    assert notebooks.errors(nb) == ["a widget: ValueError: swallowed"]


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
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nb.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(nb, tmp_path / "in.ipynb")
    with pytest.raises(RuntimeError, match="a widget: ZeroDivisionError"):
        notebooks.execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb")
