"""Downloads from a server of the test's own, and archives that mean harm."""

import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from spdlib.datasets import download_visa
from spdlib.datasets.download import fetch, is_unpacked, unpack

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """Serves ``content``; cuts connections after ``cut`` bytes as long as ``cuts`` last.

    ``errors`` are the statuses of the next answers; None for an answer as it should be.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            site = self.server
            start = 0
            asked = self.headers.get("Range")
            site.asked.append(asked)
            if site.errors and (error := site.errors.pop(0)):
                self.send_error(error)
                return
            if asked and site.ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(site.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(site.content)}")
                    self.end_headers()
                    return
                self.send_response(206)
                last = len(site.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(site.content)}")
            else:
                self.send_response(200)
            body = site.content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if site.cuts:
                site.cuts -= 1
                body = body[: site.cut]
            self.wfile.write(body)
            site.sent += len(body)

        def log_message(self, *_):
            pass

    site = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.content, site.cuts, site.cut, site.ranges = CONTENT, 0, 0, True
    site.asked, site.sent, site.errors = [], 0, []
    site.url = f"http://127.0.0.1:{site.server_port}/file.tar"
    thread = threading.Thread(target=site.serve_forever, daemon=True)
    thread.start()
    yield site
    site.shutdown()
    site.server_close()
    thread.join()


def test_a_download_that_breaks_goes_on_where_it_stopped(server, tmp_path):
    server.cuts, server.cut = 2, 1_200_000
    path = fetch(server.url, tmp_path / "file.tar", DIGEST, wait=0)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1200000-", "bytes=2400000-"]
    assert server.sent == len(CONTENT), "nothing should be sent twice"
    assert [file.name for file in tmp_path.iterdir()] == ["file.tar"]
    fetch(server.url, path, DIGEST)
    assert len(server.asked) == 3, "what is there is not fetched again"


def test_a_later_call_goes_on_too(server, tmp_path):
    server.cuts, server.cut = 1, 1_000_000
    server.errors = [None, 503]
    with pytest.raises(ConnectionError, match=r"503.*1,000,000 bytes are kept"):
        fetch(server.url, tmp_path / "file.tar", DIGEST, attempts=2, wait=0)
    server.asked.clear()
    assert fetch(server.url, tmp_path / "file.tar", DIGEST).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000000-"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.cuts, server.cut, server.ranges = 1, 1_000_000, False
    path = fetch(server.url, tmp_path / "file.tar", DIGEST, wait=0)
    assert path.read_bytes() == CONTENT


def test_a_whole_part_is_only_checked(server, tmp_path):
    (tmp_path / "file.tar.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "file.tar", DIGEST).read_bytes() == CONTENT
    assert server.sent == 0
    (tmp_path / "more.tar.part").write_bytes(CONTENT + b"more")
    with pytest.raises(ValueError, match=r"more\.tar was received, but"):
        fetch(server.url, tmp_path / "more.tar", DIGEST)
    assert fetch(server.url, tmp_path / "more.tar", DIGEST).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_removed(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(ValueError, match=rf"file\.tar was received, but .* not {DIGEST}"):
        fetch(server.url, tmp_path / "file.tar", DIGEST)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file.tar").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is there already, but"):
        fetch(server.url, tmp_path / "file.tar", DIGEST)
    assert (tmp_path / "file.tar").read_bytes() == b"something else"


def test_what_cannot_be_had_says_so(server, tmp_path):
    server.errors = [404]
    with pytest.raises(ConnectionError, match="404"):
        fetch(server.url, tmp_path / "file.tar", DIGEST)
    assert len(server.asked) == 1, "asking again would not help"
    with pytest.raises(ValueError, match="not an http"):
        fetch("file:///etc/passwd", tmp_path / "file.tar", DIGEST)


def archive(path, members):
    """A tar of (name, content or a change of its TarInfo)."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(info, key, value)
                tar.addfile(info)
    return path


def link(target, kind=tarfile.SYMTYPE):
    return {"type": kind, "linkname": target}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../outside.txt", b"x"),
        ("in/../../outside.txt", b"x"),
        ("link", link("/etc/passwd")),
        ("link", link("../outside.txt")),
        ("hard", link("../outside.txt", tarfile.LNKTYPE)),
        ("pipe", {"type": tarfile.FIFOTYPE}),
    ],
)
def test_a_harmful_archive_writes_nothing(tmp_path, name, content):
    file = archive(tmp_path / "bad.tar", [("inside.txt", b"fine"), (name, content)])
    with pytest.raises(ValueError, match=r"bad\.tar: damaged or unsafe"):
        unpack(file, tmp_path / "data" / "set", DIGEST)
    assert list((tmp_path / "data").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "data"]


def test_an_absolute_name_stays_inside(tmp_path):
    target = tmp_path / "outside.txt"
    unpack(archive(tmp_path / "bad.tar", [(str(target), b"x")]), tmp_path / "set", DIGEST)
    assert not target.exists() and is_unpacked(tmp_path / "set", DIGEST)


def test_a_cut_archive_writes_nothing(tmp_path):
    whole = archive(tmp_path / "whole.tar", [("a.bin", CONTENT), ("b.bin", CONTENT)])
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:4_000_000])
    with pytest.raises(ValueError, match=r"cut\.tar: damaged"):
        unpack(cut, tmp_path / "set", DIGEST)
    assert not (tmp_path / "set").exists()


def test_download_visa_once(server, tmp_path):
    members = [("candle/Data/Images/Normal/0000.JPG", b"image"), ("split_csv/1cls.csv", b"rows")]
    server.content = archive(tmp_path / "made.tar", members).read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    root = tmp_path / "data" / "visa"
    assert download_visa(root, server.url, digest) == root
    assert (root / "split_csv" / "1cls.csv").read_bytes() == b"rows"
    assert [path.name for path in root.parent.iterdir()] == ["visa"], "the archive is not kept"
    assert is_unpacked(root, digest) and not is_unpacked(root, DIGEST)
    server.errors = [404, 404]
    assert download_visa(root, server.url, digest) == root
    assert len(server.asked) == 1
    (root / "split_csv" / "1cls.csv").unlink()
    with pytest.raises(FileExistsError, match="not, or not all, of"):
        download_visa(root, server.url, digest)


def test_an_archive_brought_by_hand_is_taken(server, tmp_path):
    server.errors = [404, 404]
    (tmp_path / "data").mkdir()
    file = archive(tmp_path / "data" / "file.tar", [("split_csv/1cls.csv", b"rows")])
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    root = download_visa(tmp_path / "data" / "visa", server.url, digest)
    assert (root / "split_csv" / "1cls.csv").exists() and server.asked == []
