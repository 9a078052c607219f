"""Downloads from a server on this machine: whole, resumed, refused, wrong, and unpacked safely."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from beta_jax.traces import fetch as fetch_module
from beta_jax.traces.__main__ import main
from beta_jax.traces.fetch import DATASETS, Download, FetchError, fetch, unpack

CONTENT = np.random.default_rng(0).bytes(300_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the first part of the path says how badly."""

    requests: list[tuple[str, str | None]]

    def do_GET(self):
        behaviour, wanted = self.path.split("/")[1], self.headers.get("Range")
        self.requests.append((behaviour, wanted))
        first = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if behaviour == "missing" or (behaviour == "busy" and len(self.requests) < 3):
            self.send_error(404 if behaviour == "missing" else 503)
            return
        if behaviour == "moved":
            self.send_response(302)
            self.send_header("Location", "/good/elsewhere")
            self.end_headers()
            return
        if behaviour == "forgets-ranges":
            first = 0
        data = CONTENT[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        cut = {"breaks-off": 100_000, "forgets-ranges": 200_000 * (len(self.requests) < 2)}
        cut |= {"stuck": 0 if first else 10}
        self.wfile.write(data[: cut.get(behaviour) or (0 if behaviour == "stuck" else None)])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    Handler.requests = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def download(url, **changes):
    return Download(url, **{"size": len(CONTENT), "sha256": _sha256(CONTENT)} | changes)


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("behaviour", "requests"),
    [
        ("good", [None]),
        ("moved", [None, None]),
        ("busy", [None] * 3),
        ("breaks-off", [None, "bytes=100000-", "bytes=200000-"]),
        ("forgets-ranges", [None, "bytes=200000-"]),
    ],
)
def test_a_download_arrives_whole(server, tmp_path, behaviour, requests):
    said = []
    item = download(f"{server}/{behaviour}/trace.csv")
    fetch("some", tmp_path / "new", downloads=(item,), say=said.append)
    assert (tmp_path / "new" / "trace.csv").read_bytes() == CONTENT
    assert [wanted for _, wanted in Handler.requests] == requests
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["trace.csv"]
    assert said == [f"{tmp_path / 'new' / 'trace.csv'}: 300,000 bytes, verified"]


def test_a_later_run_resumes_and_a_finished_file_is_kept(server, tmp_path):
    item = download(f"{server}/good/trace.csv")
    (tmp_path / "trace.csv.part").write_bytes(CONTENT[:250_000])
    fetch("some", tmp_path, downloads=(item,), say=str)
    fetch("some", tmp_path, downloads=(item,), say=str)
    assert Handler.requests == [("good", "bytes=250000-")]
    assert (tmp_path / "trace.csv").read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_verified(server, tmp_path):
    item = download("http://127.0.0.1:9/nowhere/trace.csv")
    (tmp_path / "trace.csv").write_bytes(CONTENT)
    fetch("some", tmp_path, downloads=(item,), say=str)
    (tmp_path / "trace.csv").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(FetchError, match=r"trace\.csv: SHA-256 .* instead of .* delete it"):
        fetch("some", tmp_path, downloads=(item,), say=str)


@pytest.mark.parametrize(
    ("behaviour", "changes", "message"),
    [
        ("good", {"sha256": "0" * 64}, r"SHA-256 \w{64} instead of 0{64}: not the published file"),
        ("good", {"size": 200_000}, r"300,000 bytes instead of 200,000: not the published file"),
        ("missing", {}, r"the server answers 404 Not Found\): download it by hand to .*trace\.csv"),
        (
            "stuck",
            {},
            r"cannot download http.*: download it by hand to .*trace\.csv, then run this",
        ),
    ],
)
def test_failed_downloads_say_what_to_do(server, tmp_path, behaviour, changes, message):
    item = download(f"{server}/{behaviour}/trace.csv", **changes)
    with pytest.raises(FetchError, match=message) as error:
        fetch("some", tmp_path, downloads=(item,), say=str)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trace.csv").exists()
    assert len(Handler.requests) <= 1 + fetch_module.ATTEMPTS


def test_offline_says_what_to_download_by_hand_and_where_to_put_it(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    for dataset in DATASETS:
        assert main(["fetch", dataset, "--to", str(tmp_path)]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        item = DATASETS[dataset][0]
        assert item.url in error and str(tmp_path / item.name) in error
        assert "Network is unreachable" in error and error.startswith("error: ")
    with pytest.raises(FetchError, match="data set must be"):
        fetch("maf3", tmp_path)


def test_what_cannot_be_unpacked_here_is_explained(server, tmp_path):
    (hand,) = (item.by_hand for item in DATASETS["maf2"])
    said = []
    item = download(f"{server}/good/trace.rar", by_hand=hand)
    fetch("some", tmp_path, downloads=(item,), say=said.append)
    assert "unrar x trace.rar" in said[-1] and str(tmp_path) in said[-1]


def test_published_files_are_named_with_size_and_checksum():
    for items in DATASETS.values():
        for item in items:
            assert item.url.startswith("https://") and item.size > 10**5
            assert item.sha256 is None or re.fullmatch("[0-9a-f]{64}", item.sha256)


# --- archives ------------------------------------------------------------------------------------

MEMBERS = {
    "data/d01.csv": b"one",
    "../d02.csv": b"two",
    "/tmp/d03.csv": b"three",
    "..\\d04.csv": b"four",
    "readme.txt": b"not wanted",
}


def _tar(path, mode="w:xz"):
    with tarfile.open(path, mode) as tar:
        for name, data in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for kind, name in ((tarfile.SYMTYPE, "d05.csv"), (tarfile.LNKTYPE, "d06.csv")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("d07.csv")
        info.type = tarfile.FIFOTYPE
        tar.addfile(info)


def _zip(path):
    with zipfile.ZipFile(path, "w") as pack:
        pack.writestr("d08.csv/", b"")
        for name, data in MEMBERS.items():
            pack.writestr(name, data)


@pytest.mark.parametrize("make", [_tar, lambda path: _tar(path, "w:gz"), _zip])
def test_archives_cannot_write_outside_the_folder(tmp_path, make):
    folder = tmp_path / "inner" / "folder"
    folder.mkdir(parents=True)
    make(tmp_path / "archive")
    names = ["d01.csv", "d02.csv", "d03.csv", "d04.csv"]
    assert unpack(tmp_path / "archive", folder, r"d\d\d\.csv") == names
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "d03.csv").read_bytes() == b"three"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archive", "inner"]
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]


def test_a_link_in_the_folder_is_replaced_not_followed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "precious").write_text("untouched")
    (folder / "d01.csv").symlink_to(tmp_path / "precious")
    _tar(tmp_path / "archive")
    unpack(tmp_path / "archive", folder, r"d01\.csv")
    assert (tmp_path / "precious").read_text() == "untouched"
    assert (folder / "d01.csv").read_bytes() == b"one"


def test_bad_archives(tmp_path, monkeypatch):
    archive = tmp_path / "archive"
    archive.write_bytes(b"neither tar nor zip")
    with pytest.raises(FetchError, match="archive: cannot be unpacked"):
        unpack(archive, tmp_path, "d")
    _tar(archive)
    whole = archive.read_bytes()
    for damaged in (whole[:100], whole[:100] + b"?" * 20 + whole[120:]):
        archive.write_bytes(damaged)
        with pytest.raises(FetchError, match="archive: cannot be unpacked"):
            unpack(archive, tmp_path, r"d\d\d\.csv")
    _zip(archive)
    with pytest.raises(FetchError, match="there is no nothing in it"):
        unpack(archive, tmp_path, "nothing")
    monkeypatch.setattr(fetch_module, "LARGEST_UNPACKED_BYTES", 5)
    with pytest.raises(FetchError, match="more than 5 bytes"):
        unpack(archive, tmp_path, r"d\d\d\.csv")


def test_fetched_archives_are_unpacked(server, tmp_path, monkeypatch):
    archive = tmp_path / "source"
    _tar(archive)
    data = archive.read_bytes()
    monkeypatch.setattr(f"{__name__}.CONTENT", data)
    item = download(f"{server}/good/a.tar.xz", size=len(data), sha256=_sha256(data),
                    members=r"d\d\d\.csv")  # fmt: skip
    said = []
    fetch("some", tmp_path / "to", downloads=(item,), say=said.append)
    assert (tmp_path / "to" / "d01.csv").read_bytes() == b"one"
    assert said[1:] == [f"{tmp_path / 'to' / f'd0{i}.csv'}: unpacked" for i in range(1, 5)]
