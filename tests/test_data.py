"""The data set comes by itself, is never used damaged, and is split as the README says."""

import functools
import gzip
import http.server
import os
import shutil
import socketserver
import threading

import numpy as np
import pytest
from conftest import RANDOM, SMALL, assert_one_line
from machine import data_folder  # sets up TensorFlow

import common

FILES = sorted(f"{name}.gz" for name in common.SHA256)
NOWHERE = "http://127.0.0.1:9/"  # where nobody listens


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Keras cache; where its data set will lie."""
    data_folder()  # is looked up in the real one
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))  # for other processes
    monkeypatch.setattr(common, "CACHE", tmp_path / "keras" / common.FOLDER)
    return common.CACHE


@pytest.fixture
def filled(cache):
    """A Keras cache that has a copy of the four files."""
    return shutil.copytree(data_folder(), cache)


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


def test_a_download_is_put_into_the_cache_and_nothing_else(serve, cache, monkeypatch, capsys):
    serve(functools.partial(http.server.SimpleHTTPRequestHandler, directory=data_folder()))
    common.fetch_data()
    assert sorted(path.name for path in cache.rglob("*")) == FILES
    assert_one_line(capsys.readouterr().err.splitlines()[0], common.URL)
    monkeypatch.setattr(common, "URL", NOWHERE)
    assert common.read_idx("t10k-labels-idx1-ubyte").shape == (10_000,)


class LogsIn(http.server.BaseHTTPRequestHandler):
    """A hotel's network: whatever is asked for, the answer is a page to log in."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Please log in</html>")


class NeverAnswers(socketserver.BaseRequestHandler):
    """A network that takes a connection and is dead."""

    def handle(self):
        while self.request.recv(1000):
            pass


@pytest.mark.parametrize("handler", [LogsIn, NeverAnswers])
def test_a_failed_download_leaves_nothing_and_a_line_names_the_other_ways(serve, cache, monkeypatch, handler):
    monkeypatch.setenv("PATH", str(cache))  # no command is found there, so no apt-get
    serve(handler)
    with pytest.raises(OSError) as failure:
        common.fetch_data()
    assert_one_line(str(failure.value), "Debian's package", str(cache), *FILES)
    assert sorted(path.name for path in cache.rglob("*")) == []


def test_without_test_data_a_search_ends_in_one_line_before_any_training(filled, run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (filled / "t10k-images-idx3-ubyte.gz").unlink()
    offline = "import socket\ndef resolve(*args):\n    raise OSError('no such host')\nsocket.getaddrinfo = resolve"
    (tmp_path / "sitecustomize.py").write_text(offline)
    process = run(RANDOM, *SMALL, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert process.returncode == 1 and "Trial" not in process.stdout
    *progress, last = process.stderr.splitlines()
    assert len(progress) == 2 and common.URL in progress[0]
    assert last.startswith(f"{RANDOM}: ") and "Debian's package" in last


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs Debian's or Ubuntu's package manager")
def test_where_the_download_fails_the_data_come_from_debian_s_package(cache, monkeypatch, capsys):
    monkeypatch.setattr(common, "URL", NOWHERE)
    common.fetch_data()
    assert sorted(path.name for path in cache.rglob("*")) == FILES
    assert "Debian" in capsys.readouterr().err
    assert common.load_train_data(4)[0][0].shape == (4, 28, 28) and common.load_test_data()[0].shape[0] == 10_000


@pytest.mark.parametrize(
    "name, damage",
    [
        ("train-images-idx3-ubyte", lambda content: content[:-1000]),
        ("train-labels-idx1-ubyte", lambda content: gzip.compress(bytes(100) + gzip.decompress(content)[100:])),
    ],
)
def test_damaged_data_are_named(filled, name, damage):
    path = filled / f"{name}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(OSError, match=rf"{filled}/{name}\.gz is damaged or altered: delete it"):
        common.load_train_data(), common.load_test_data()


def test_training_and_validation_images_are_the_right_ones_and_never_overlap():
    (images, labels), (validation_images, validation_labels) = common.load_train_data()
    assert images.shape == (48000, 28, 28) and validation_images.shape == (12000, 28, 28)
    both = np.concatenate([labels, validation_labels])
    assert both.dtype == "float32" and both.sum(axis=0).tolist() == [6000] * 10  # one-hot
    assert both.shape == (60000, 10) and set(np.unique(both)) == {0, 1}
    few, few_validation = common.load_train_data(400)
    assert np.array_equal(few[0], images[:400]) and np.array_equal(few[1], labels[:400])
    assert np.array_equal(few_validation[0], validation_images[:100])
    assert np.array_equal(few_validation[1], validation_labels[:100])
    test_images, test_labels = common.load_test_data()
    assert test_images.shape == (10_000, 28, 28) and test_labels.sum(axis=0).tolist() == [1000] * 10
