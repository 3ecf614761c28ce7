"""The progress bar where it is seen: in an executed notebook, in a terminal."""

import nbformat
import pytest

from spdlib import notebooks
from spdlib.progress import track


def test_terminal(capsys):
    assert list(track(range(5), "counting", "cells")) == [0, 1, 2, 3, 4]
    shown = capsys.readouterr().err
    assert "counting" in shown and "5/5" in shown


@pytest.mark.slow
def test_an_executed_notebook_shows_one_finished_bar(tmp_path):
    source = (
        "import time\n"
        "from spdlib.progress import track\n"
        "for _ in track(range(30), 'counting', 'cells'):\n"
        "    time.sleep(0.05)"
    )
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nb.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(nb, tmp_path / "in.ipynb")
    executed = notebooks.execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb")
    (output,) = executed.cells[0].outputs
    assert "30/30 cells" in output.data["text/plain"] and "100%" in output.data["text/plain"]
    assert "30/30 cells" in (tmp_path / "out.html").read_text()
