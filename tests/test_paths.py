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


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "made" / "here"
    with pytest.raises(RuntimeError, match="half-way"), paths.whole_folder(target) as temporary:
        (temporary / "new").touch()
        raise RuntimeError("half-way")
    assert not list(target.parent.iterdir())
    with paths.whole_folder(target) as temporary:
        (temporary / "old").touch()
    with pytest.raises(OSError, match="not empty"), paths.whole_folder(target):
        pass
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(target.parent.iterdir()) == [target]


def test_need_room_says_how_much_is_missing(tmp_path):
    paths.need_room(tmp_path, 0)
    with pytest.raises(OSError, match=r"1,000,000,000 MB are needed, .* MB are free"):
        paths.need_room(tmp_path, 10**15)


def test_each_data_set_has_runs_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("SPDLIB_RUNS", raising=False)
    usual = paths.root() / "runs"
    assert paths.runs() == paths.runs("elpv") == usual
    (tmp_path / "mine" / "normal").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "normal")
    assert paths.results("..") == usual / "mine" / "results"
    assert paths.encoders(tmp_path / "results") == usual / "results_data" / "encoders"
    monkeypatch.setenv("SPDLIB_RUNS", str(tmp_path / "{own}"))
    assert paths.runs("visa") == tmp_path / "{own}"


def test_need_names_the_file_and_its_maker(tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_RUNS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"^runs/encoders/x is not there yet: run 02 first"):
        paths.need(paths.encoders() / "x", "02")
