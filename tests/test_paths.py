"""Files appear whole or not at all, and a missing one says what makes it."""

import pytest

from spdlib import paths


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
    target = tmp_path / "new" / "result.json"
    with paths.replacing(target) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError, match="half-way"), paths.replacing(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half-way")
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_need_names_the_file_and_its_maker(tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_RUNS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"^runs/encoders/x is not there yet: run 02 first"):
        paths.need(paths.encoders() / "x", "02")
