"""The data set comes by itself, is never used damaged, and is split as the README says."""

import functools
import gzip
import http.server
import os
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import tuning  # isort: skip (first: it sets up TensorFlow)

import common
import numpy as np
import pytest
from conftest import RANDOM, ROOT, SMALL, assert_one_line
from machine import as_nobody, data_folder

FILES = sorted(f"{name}.gz" for name in common.SHA256)
NOWHERE = "http://127.0.0.1:9/"  # where nobody listens


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Keras cache; where its data set will lie."""
    data_folder()  # is looked up in the real one
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return common.keras_cache()


@pytest.fixture
def filled(cache):
    """A Keras cache that has a copy of the four files."""
    return shutil.copytree(data_folder(), cache)


@pytest.fixture
def without_debian(tmp_path, monkeypatch):
    """No command is found, so no apt-get."""
    monkeypatch.setenv("PATH", str(tmp_path / "no commands"))


@pytest.fixture
def serve(monkeypatch):
    """serve(handler): the data set is fetched from a web server of our own with this request handler."""
    servers = []

    def serve(handler):
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        monkeypatch.setattr(common, "URL", f"http://127.0.0.1:{servers[-1].server_port}/")

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def serving(folder):
    return functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)


def left_in(cache):
    """The names of all that lies in a cache."""
    return sorted(path.name for path in cache.rglob("*"))


# --- Fetching ---------------------------------------------------------------------------------------------------------


def test_a_download_is_put_into_the_cache_and_nothing_else(serve, cache, monkeypatch, capsys):
    serve(serving(data_folder()))
    common.fetch_data()
    assert left_in(cache) == FILES
    assert_one_line(capsys.readouterr().err.splitlines()[0], common.URL)
    monkeypatch.setattr(common, "URL", NOWHERE)
    assert common.read_idx("t10k-labels-idx1-ubyte").shape == (10_000,)


class LogsIn(http.server.BaseHTTPRequestHandler):
    """A hotel's network: whatever is asked for, the answer is a page to log in."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Please log in</html>")


class HangsUp(http.server.BaseHTTPRequestHandler):
    """A connection that breaks off in the middle of a file."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(bytes(1000))


class FallsSilent(http.server.BaseHTTPRequestHandler):
    """A network that dies in the middle of a file."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(bytes(1000))
        self.rfile.read()  # until the other side hangs up


class NeverAnswers(socketserver.BaseRequestHandler):
    """A network that takes a connection and is dead."""

    def handle(self):
        while self.request.recv(1000):
            pass


@pytest.mark.parametrize("handler", [LogsIn, HangsUp, FallsSilent, NeverAnswers])
def test_a_download_that_fails_leaves_nothing_and_one_line_names_the_ways_that_are_left(
    serve, cache, without_debian, handler
):
    serve(handler)
    with pytest.raises(OSError) as failure:
        common.fetch_data()
    message = str(failure.value)
    assert_one_line(message, "apt-get install dataset-fashion-mnist", str(cache), *FILES)
    assert left_in(cache) == []


def test_after_a_damaged_download_the_same_command_fetches_anew(serve, cache, without_debian):
    serve(LogsIn)
    with pytest.raises(OSError):
        common.read_idx("t10k-labels-idx1-ubyte")
    serve(serving(data_folder()))
    assert common.read_idx("t10k-labels-idx1-ubyte").shape == (10_000,)


def test_without_data_and_network_a_script_says_in_one_line_what_can_be_done(run, tmp_path, without_debian):
    offline = "import socket\ndef getaddrinfo(*args):\n    raise OSError('no such host')\nsocket.getaddrinfo = getaddrinfo"
    (tmp_path / "sitecustomize.py").write_text(offline)
    process = run(RANDOM, *SMALL, env=os.environ | {"KERAS_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)})
    assert process.returncode == 1 and "Trial" not in process.stdout
    *progress, last = process.stderr.splitlines()
    assert len(progress) == 2 and common.URL in progress[0]
    assert last.startswith(f"{RANDOM}: ") and "apt-get install dataset-fashion-mnist" in last


needs_debian = pytest.mark.skipif(not shutil.which("apt-get"), reason="needs Debian's or Ubuntu's package manager")


@needs_debian
def test_where_the_download_fails_the_data_come_from_debian_s_package(cache, monkeypatch, capsys):
    monkeypatch.setattr(common, "URL", NOWHERE)
    common.fetch_data()
    assert left_in(cache) == FILES
    assert "Debian" in capsys.readouterr().err
    assert common.load_train_data(4)[0][0].shape == (4, 28, 28) and common.load_test_data()[0].shape[0] == 10_000


@needs_debian
def test_debian_s_package_needs_no_superuser():
    code = f"import common; common.URL = {NOWHERE!r}; common.fetch_data(), common.load_test_data()"
    with tempfile.TemporaryDirectory() as home:  # tmp_path is closed to others
        os.chmod(home, 0o777)
        environment = os.environ | {"KERAS_HOME": home, "PYTHONPATH": str(ROOT)}
        command = [*as_nobody(), sys.executable, "-c", code]
        process = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        assert left_in(Path(home) / common.FOLDER) == FILES


# --- Reading ----------------------------------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def alter(path):
    path.write_bytes(gzip.compress(bytes(100) + gzip.decompress(path.read_bytes())[100:], compresslevel=1))


@pytest.mark.parametrize("name, damage", [
    ("train-images-idx3-ubyte", truncate),
    ("train-labels-idx1-ubyte", alter),
    ("t10k-labels-idx1-ubyte", lambda path: path.write_bytes(b"")),
])
def test_damaged_data_are_named(filled, name, damage):
    damage(filled / f"{name}.gz")
    with pytest.raises(OSError, match=rf"{filled}/{name}\.gz is damaged or altered: delete it"):
        common.load_train_data(), common.load_test_data()


def test_damaged_test_data_end_a_search_in_one_line_before_any_training(filled, run):
    truncate(filled / "t10k-images-idx3-ubyte.gz")
    process = run(RANDOM, *SMALL)
    assert process.returncode == 1 and "Trial" not in process.stdout
    assert_one_line(process.stderr, "damaged")


def test_training_and_validation_images_are_the_right_ones_and_never_overlap():
    (images, labels), (validation_images, validation_labels) = common.load_train_data()
    assert images.shape == (48000, 28, 28) and validation_images.shape == (12000, 28, 28)
    assert np.bincount(np.concatenate([labels, validation_labels])).tolist() == [6000] * 10
    (few, _), (few_validation, _) = common.load_train_data(400)
    assert np.array_equal(few, images[:400]) and np.array_equal(few_validation, validation_images[:100])


def test_the_real_file_format_is_read(cache, monkeypatch):
    images = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    content = bytes([0, 0, 8, 3]) + np.array(images.shape, ">i4").tobytes() + images.tobytes()
    cache.mkdir(parents=True)
    (cache / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    monkeypatch.setitem(common.SHA256, "t10k-images-idx3-ubyte", common.hashlib.sha256(content).hexdigest())
    assert np.array_equal(common.read_idx("t10k-images-idx3-ubyte"), images)
