"""The same result, or one clear line, whatever surrounds a search: what the environment and the home directory hold for
other programs, how it is started, and where its results lie."""

import errno
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
from pathlib import Path

import jupyter_client.manager
import pytest
from conftest import FOLDERS, RANDOM, SMALL, assert_one_line, command, open_tuner, read_until, trial_rows
from machine import NOBODY, as_nobody, at_work, data_folder

TINY = (*SMALL, "--max-trials", "2")  # the first two trials of the reference
LOCKLESS = """
import errno, fcntl
def flock(*args):
    raise OSError(errno.ENOSYS, "no locks")
fcntl.flock = flock
"""


def project(folder):
    return folder / "keras_tuner_results" / FOLDERS[RANDOM]


def trials(folder):
    return sorted(trial_rows(project(folder)), key=lambda row: int(row["trial"]))


def result(output):
    return output[output.index("Best hyperparameters:"):]


@pytest.fixture
def undisturbed(reference):
    """The trials of a TINY search that nothing disturbs."""
    return trials(reference(RANDOM))[:2]


@pytest.fixture
def finished(reference, tmp_path):
    """A copy of a finished search in the test's folder; its result, as it was printed."""
    shutil.copytree(reference(RANDOM) / "keras_tuner_results", tmp_path / "keras_tuner_results")
    return result((reference(RANDOM) / "stdout.txt").read_text())


@pytest.fixture
def disturb(tmp_path):
    """disturb(code): the variables of a process that runs this Python code before it does anything else."""

    def disturb(code):
        (tmp_path / "sitecustomize.py").write_text(code)
        return os.environ | {"PYTHONPATH": str(tmp_path)}

    return disturb


@pytest.fixture
def keras_json(tmp_path):
    """keras_json(text): a new home directory with the data set and this keras.json."""

    def keras_json(text):
        folder = Path(tempfile.mkdtemp(dir=tmp_path)) / ".keras"
        (folder / "datasets").mkdir(parents=True)
        (folder / "datasets" / "fashion-mnist").symlink_to(data_folder())
        (folder / "keras.json").write_text(text)
        return folder.parent

    return keras_json


# --- Settings of other programs ---------------------------------------------------------------------------------------

OTHER_NETWORK = {"image_data_format": "channels_first", "floatx": "float16", "backend": "jax", "epsilon": 0.1}
OTHER_DIGITS = {"floatx": "float64"}
WRONG_TYPES = {"image_data_format": None, "floatx": 64, "backend": [], "epsilon": "small"}


@pytest.mark.slow
def test_no_variable_set_for_keras_or_tensorflow_changes_a_digit(run, undisturbed, tmp_path, keras_json):
    variables = {
        "KERAS_HOME": str(keras_json(json.dumps(OTHER_NETWORK)) / ".keras"),
        "KERAS_BACKEND": "jax",
        "KERAS_MAX_EPOCHS": "1",
        "KERAS_MAX_STEPS_PER_EPOCH": "1",
        "TF_USE_LEGACY_KERAS": "1",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF2_BEHAVIOR": "0",
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "OMP_NUM_THREADS": "3",
    }
    process = run(RANDOM, *TINY, env=os.environ | variables)
    assert (process.returncode, process.stderr) == (0, "")
    assert trials(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_search_is_begun_resumed_and_reported_whatever_keras_json_says(run, undisturbed, tmp_path, keras_json):
    results = []
    for text, max_trials in (
        (json.dumps(OTHER_NETWORK), 1),
        (json.dumps(OTHER_DIGITS), 2),
        (json.dumps(WRONG_TYPES), 2),
        ('{"floatx": ', 2),
    ):
        environment = os.environ | {"HOME": str(keras_json(text))}
        environment.pop("KERAS_HOME", None)
        process = run(RANDOM, *TINY, "--max-trials", max_trials, env=environment)
        assert (process.returncode, process.stderr) == (0, ""), text
        assert trials(tmp_path) == undisturbed[:max_trials], text
        results.append(result(process.stdout))
    assert results[1] == results[2] == results[3]


@pytest.mark.parametrize("style, named", [
    (b"backend: qtagg\naxes.facecolor: red\nfont.size: 40\ntext.usetex: True\nno_such_setting: 1\n", True),
    (b"\xff\xfe", True),
    (b"\xff\xfe", False),
], ids=["another style", "no text", "no text, in the working directory"])
def test_no_backend_or_style_set_for_matplotlib_changes_a_picture(finished, run, tmp_path, style, named):
    pictures = sorted(project(tmp_path).glob("*.png"))
    before = [path.read_bytes() for path in pictures]
    for path in pictures:
        path.unlink()
    (tmp_path / "matplotlibrc").write_bytes(style)
    variables = {
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # Jupyter sets it for all that it starts
    }
    process = run(RANDOM, *SMALL, env=os.environ | (variables if named else {}))
    assert (process.returncode, process.stderr) == (0, "")
    assert [path.read_bytes() for path in pictures] == before


@pytest.mark.slow
def test_a_missing_package_ends_the_search_in_one_line_and_fails_no_trial(run, undisturbed, tmp_path, disturb):
    missing = disturb("import sys\nsys.modules['tensorboard'] = None")  # KerasTuner imports it in each trial
    process = run(RANDOM, *TINY, env=missing)
    assert process.returncode == 1 and "failed" not in process.stdout
    assert_one_line(process.stderr, "tensorboard", "the same command resumes the search")
    assert run(RANDOM, *TINY).returncode == 0
    assert trials(tmp_path) == undisturbed


# --- Terminals --------------------------------------------------------------------------------------------------------


def test_a_folder_whose_name_the_terminal_can_not_print_is_no_obstacle(finished, run, tmp_path):
    (tmp_path / "keras_tuner_results").rename(tmp_path / "résultats")
    process = run(RANDOM, *SMALL, "--results-dir", "résultats", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (process.returncode, process.stderr) == (0, "")
    assert result(process.stdout) == finished
    assert re.search(r"are in r\?sultats/", process.stdout)


@pytest.mark.parametrize("columns, variables", [
    (120, {"TERM": "dumb"}), (120, {"TERM": "xterm", "NO_COLOR": "1"}), (40, {"TERM": "xterm"}),
])
def test_a_terminal_gets_only_what_it_can_show(start, columns, variables):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # pytest-xdist sets it
    process = start(RANDOM, *SMALL, "--max-trials", "1", env=environment | variables, **terminal)
    os.close(theirs)
    output = b""
    while process.poll() is None:
        with pytest.raises(OSError):  # once the process has closed its side
            while part := os.read(ours, 10_000):
                output += part
        process.wait()
    os.close(ours)
    output = output.decode().replace("\r\n", "\n")
    assert process.returncode == 0 and "Epoch 1/2" in output
    assert re.sub(r"[ -~\n]", "", output) == ""


# --- How it is started ------------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(tmp_path):
    """notebook(code): the status and the output of a cell in a Jupyter notebook, stopped at this text of its output."""
    manager, client = jupyter_client.manager.start_new_kernel(cwd=str(tmp_path))

    def notebook(code, stop_at=None):
        output = []

        def receive(message):
            output.append(message["content"].get("text", ""))
            if stop_at and stop_at in output[-1]:
                manager.interrupt_kernel()

        answer = client.execute_interactive(code, timeout=300, output_hook=receive)
        return answer["content"]["status"], "".join(output)

    yield notebook
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_cell(*options):
    return f"%run {command(RANDOM)[1]} {' '.join(options)}"


@pytest.mark.slow
def test_a_notebook_runs_and_resumes_a_search_and_outlives_a_bad_option(notebook, undisturbed, tmp_path):
    _, output = notebook(run_cell("--max-trials", "0"))
    assert f"{RANDOM}: argument --max-trials: must be" in output and "Traceback" not in output
    for max_trials in "1", "2":
        status, output = notebook(run_cell(*TINY, "--max-trials", max_trials))
        assert status == "ok" and f"trial {max_trials} of {max_trials}" in output
        assert "\nTotal elapsed time: 0h" in output
        assert trials(tmp_path) == undisturbed[:int(max_trials)]
        # Time in which nothing was done does not count.
        notebook("import time\ntime.monotonic = lambda clock=time.monotonic: clock() + 3600")
    assert notebook("print(6 * 7)") == ("ok", "42\n")


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["serial", "parallel"])
def test_a_search_stopped_in_a_notebook_is_resumed_by_the_same_cell(notebook, undisturbed, tmp_path, options):
    cell = run_cell(*TINY, *options)
    _, output = notebook(cell, stop_at="Trial 1 of")
    assert f"{RANDOM}: interrupted" in output and "Traceback" not in output and "Test accuracy" not in output
    assert at_work(RANDOM) == []  # no worker either
    status, output = notebook(cell)
    assert status == "ok" and "Test accuracy" in output
    assert trials(tmp_path) == undisturbed


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_standard_streams_may_be_closed(finished, tmp_path, closed):
    summary = project(tmp_path) / "summary.json"
    summary.unlink()
    process = subprocess.run(
        ["sh", "-c", f'exec "$@" {" ".join(f"{each}>&-" for each in closed)}', "sh", *command(RANDOM, *SMALL)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == "" if 1 in closed else result(process.stdout) == finished
    assert summary.exists()


@pytest.mark.slow
def test_a_search_in_the_background_ignores_ctrl_c(start, undisturbed, tmp_path):
    process = start(RANDOM, *TINY, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    for text in ("Trial 1 of", "Trial 2 of"):
        read_until(process, text)
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert trials(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_user_without_a_name_and_a_home_can_search(undisturbed):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to others
        folder = Path(folder)
        folder.chmod(0o777)
        (folder / "datasets").mkdir()
        (folder / "datasets" / "fashion-mnist").symlink_to(data_folder())
        process = subprocess.run(
            [*as_nobody(), *command(RANDOM, *TINY)], cwd=folder, env=os.environ | {"KERAS_HOME": str(folder)},
            capture_output=True, text=True, timeout=300,
        )
        assert (process.returncode, process.stderr) == (0, "")
        assert trials(folder) == undisturbed


def test_a_folder_whose_name_is_not_unicode_is_refused_in_one_line(run, tmp_path):
    before = sorted(tmp_path.iterdir())
    process = run(RANDOM, *SMALL, "--results-dir", os.fsdecode(b"r\xe9sultats"))
    assert process.returncode == 2
    assert_one_line(process.stderr, "--results-dir")
    assert sorted(tmp_path.iterdir()) == before


def test_a_tilde_is_the_home_directory(finished, run, tmp_path):
    (tmp_path / "keras_tuner_results").rename(tmp_path / "res")
    environment = os.environ | {"HOME": str(tmp_path), "KERAS_HOME": str(data_folder().parents[1])}
    process = run(RANDOM, *SMALL, "--results-dir=~/res", env=environment)
    assert process.returncode == 0 and result(process.stdout) == finished
    assert not (tmp_path / "~").exists()


# --- Where the results lie --------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path):
    """A folder on another file system, where this machine has one: Linux keeps /dev/shm in memory."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.exists() else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["the search", "a trial", "all results"])
def test_a_folder_that_was_moved_to_another_disk_can_be_searched_anew(
    finished, run, tmp_path, elsewhere, undisturbed, what
):
    search = project(tmp_path)
    link = {"the search": search, "a trial": search / "trial_0", "all results": search.parent}[what]
    shutil.move(link, elsewhere)
    link.symlink_to(elsewhere / link.name)
    process = run(RANDOM, *SMALL, "--max-trials", "1", "--overwrite")
    assert (process.returncode, process.stderr) == (0, "")
    assert link.is_symlink()
    assert "Trial 1 of 1: val_accuracy" in process.stdout and trials(tmp_path) == undisturbed[:1]


def test_overwrite_is_refused_before_anything_is_deleted_where_not_all_can_be(reference):
    nobody = as_nobody()
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to others
        shutil.copytree(reference(RANDOM) / "keras_tuner_results", Path(folder) / "keras_tuner_results")
        paths = [Path(folder), *Path(folder).rglob("*")]
        for path in paths:
            os.chown(path, NOBODY, NOBODY)
        (project(Path(folder)) / "trial_2").chmod(0o555)
        environment = os.environ | {"KERAS_HOME": str(data_folder().parents[1])}
        process = subprocess.run(
            [*nobody, *command(RANDOM, *SMALL, "--overwrite")], cwd=folder, env=environment,
            capture_output=True, text=True, timeout=300,
        )
        assert process.returncode == 2
        assert_one_line(process.stderr, "--results-dir", "can't be written", "trial_2")
        assert {*Path(folder).rglob("*")} - {*paths} <= {project(Path(folder)) / "search.pid"}
        assert all(path.exists() for path in paths)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_used_and_reported(tmp_path, monkeypatch, capsys, number):
    def flock(*args):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    with open_tuner(RANDOM, tmp_path):
        assert "without locks: never run two searches in it" in capsys.readouterr().out
    assert (tmp_path / FOLDERS[RANDOM] / "settings.json").exists()


@pytest.mark.slow
def test_a_crash_on_a_file_system_without_locks_leaves_no_lock(start, run, disturb, undisturbed, tmp_path):
    environment = disturb(LOCKLESS)
    process = start(RANDOM, *TINY, env=environment)
    read_until(process, "Trial 2 of")
    process.kill()
    process.wait()
    process = run(RANDOM, *TINY, env=environment | {"HOSTNAME": "another"})
    assert (process.returncode, process.stderr) == (0, "")
    assert trials(tmp_path) == undisturbed
