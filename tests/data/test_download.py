import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from baffle.data import download, fetch
from baffle.errors import DataError

CONTENT = b"the published file" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Mirror(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path not in ("/whole", "/short"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[:100])

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def site():
    with serving() as address:
        yield address


@pytest.fixture
def published(tmp_path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "file").write_bytes(CONTENT)
    return (tmp_path / "mirror" / "file").as_uri()


def test_a_file_arrives_in_a_folder_made_for_it(site, tmp_path):
    fetch([f"{site}/whole"], tmp_path / "new" / "folder" / "file", SHA256)
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == CONTENT


def test_the_next_mirror_is_tried_where_one_fails(site, published, tmp_path):
    fetch([f"{site}/nowhere", f"{site}/short", published], tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def refused(urls, path, **settings):
    with pytest.raises(DataError) as caught:
        fetch(urls, path, **{"sha256": SHA256} | settings)
    return str(caught.value)


def test_a_file_with_another_checksum_is_not_kept(published, tmp_path):
    folder = tmp_path / "data"
    text = refused([published], folder / "file", sha256="0" * 64)
    assert f"{published}: has SHA-256 {SHA256}, not {'0' * 64}" in text
    assert list(folder.iterdir()) == []


def test_a_truncated_file_is_not_kept(site, tmp_path):
    text = refused([f"{site}/short"], tmp_path / "file")
    assert f"{site}/short: ended after 100 of {len(CONTENT)} bytes" in text
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_survives_a_failed_download(site, tmp_path):
    (tmp_path / "file").write_bytes(b"older")
    refused([f"{site}/nowhere"], tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"older"


def test_the_error_says_what_was_tried_and_what_to_do(site, tmp_path):
    with serving() as gone:
        pass
    text = refused([f"{site}/nowhere", f"{gone}/file", "nonsense"], tmp_path / "file")
    assert text.startswith(f"file: no download worked; place the file in {tmp_path} by hand. Tried:\n")
    lines = text.splitlines()[1:]
    assert lines[0] == f"  {site}/nowhere: HTTPError: HTTP Error 404: Not Found"
    assert re.search(r"/file: URLError: .*refused", lines[1])
    assert lines[2] == "  nonsense: ValueError: unknown url type: 'nonsense'"


def test_a_silent_mirror_is_given_up(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = refused([f"http://127.0.0.1:{silent.getsockname()[1]}/file"], tmp_path / "file", timeout=0.1)
    assert "timed out" in text


def test_a_folder_that_cannot_be_made_is_named(published, tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    assert "taken/file: can't be written" in refused([published], tmp_path / "taken" / "file")


def test_a_remote_joins_its_sites_and_its_name(published, tmp_path):
    folder = published.removesuffix("file")
    download.Remote("file", SHA256, (f"{folder}empty/", folder)).fetch(tmp_path)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_the_published_files_are_described_in_full():
    remotes = [*download.MNIST, *download.FASHION, *download.CIFAR10, *download.CIFAR100]
    assert len({remote.sha256 for remote in remotes}) == len(remotes) == 10
    for remote in remotes:
        assert re.fullmatch("[0-9a-f]{64}", remote.sha256)
        assert all(re.fullmatch("https?://.*/", address) for address in remote.sites)
