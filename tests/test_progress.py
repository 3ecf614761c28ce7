"""The progress bar where it is seen: in an executed notebook, in a terminal, in a log."""

import sys

import pytest
from notebook_files import write_notebook

from spdlib import execution
from spdlib.progress import Bar, track


def test_a_log_has_a_line_now_and_then(capsys, monkeypatch):
    clock = 0.0
    monkeypatch.setattr("tqdm.std.time", lambda: clock)
    with Bar(2700, "training", "images") as bar:
        for _ in range(2700):  # 45 minutes, one image a second
            clock += 1
            bar.update(note="loss -0.9")
    lines = capsys.readouterr().err.splitlines()
    assert "0/2700 images" in lines[0] and "2700/2700 images" in lines[-1]
    assert "100%" in lines[-1] and "loss -0.9" in lines[-1]
    assert 10 < len(lines) < 50
    assert not any("\r" in line for line in lines)


def test_short_work_is_told_in_two_lines(capsys):
    assert list(track(range(5), "counting", "cells")) == [0, 1, 2, 3, 4]
    start, end = capsys.readouterr().err.splitlines()
    assert "counting" in start and "0/5" in start and "5/5 cells" in end


def test_a_terminal_has_one_line_that_is_redrawn(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Bar(5, "counting", "cells", seconds=0, done=1) as bar:
        for _ in range(4):
            bar.update()
        assert bar.count == 5
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.count("\r") >= 5
    assert "5/5 cells" in shown.splitlines()[-1]


@pytest.mark.slow
def test_an_executed_notebook_shows_one_finished_bar(tmp_path):
    source = (
        "import time\n"
        "from spdlib.progress import track\n"
        "for _ in track(range(30), 'counting', 'cells'):\n"
        "    time.sleep(0.05)"
    )
    notebook = write_notebook(tmp_path / "in.ipynb", source)
    executed = execution.execute(notebook, tmp_path / "out.ipynb")
    (output,) = executed.cells[0].outputs
    assert "30/30 cells" in output.data["text/plain"] and "100%" in output.data["text/plain"]
    assert "30/30 cells" in (tmp_path / "out.html").read_text()
