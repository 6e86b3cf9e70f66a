"""What the tests share: pytest loads it first, so that the repository's modules can be imported from anywhere."""

import contextlib
import csv
import functools
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import filelock
import pytest

# Two test files run at a time: one thread for each process, or they wait for each other. Parallel search gives the same
# result as serial search where the number of threads is the same.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tuning  # isort: skip (first: it sets up TensorFlow)

import common
from tuning.project import Project

RANDOM, BAYESIAN = "random_search_tuning.py", "bayesian_tuning.py"
FOLDERS = {RANDOM: "fashion_mnist_cnn_random_search", BAYESIAN: "fashion_mnist_cnn_bayesian_optimization"}

TRIALS = 6  # Bayesian optimisation proposes two of them
SMALL = ("--epochs", "2", "--train-images", "400", "--max-trials", str(TRIALS))


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes 15 seconds or more; -m 'not slow' leaves it out")


def command(script, *args):
    """The command line of a script, as a list: a name in the repository's root, or a path."""
    return [sys.executable, str(ROOT / script), *map(str, args)]


def read_until(process, text):
    """Waits for a line of a process' output that contains the text."""
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"{text!r} did not come: {process.communicate()}")


def wait_until(condition, seconds=300):
    """Waits for what will come on any machine unless something hangs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def assert_one_line(errors, *parts):
    """What a process wrote to stderr is one line, and these parts are in it."""
    assert len(errors.strip().splitlines()) == 1 and all(part in errors for part in parts), errors


def trial_rows(project):
    """The rows of a project's trials.csv without the seconds, which differ from run to run."""
    with open(project / "trials.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def parser(script):
    """A script's own parser of its command line."""
    with mock.patch("tuning.run") as run:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return run.call_args.args[1]


@contextlib.contextmanager
def open_tuner(script, results_dir, *options, hypermodel=None):
    """Yields a tuner as a script makes it, with the SMALL options and these; the search's folder is ours meanwhile."""
    options = parser(script).parse_args([*SMALL, "--results-dir", str(results_dir), *map(str, options)])
    arguments = {"objective": "val_accuracy", "max_trials": options.max_trials, "seed": options.seed}
    if script == BAYESIAN:
        arguments["num_initial_points"] = options.initial_points
    tuner = {RANDOM: tuning.RandomSearch, BAYESIAN: tuning.BayesianOptimization}[script]
    with Project(options, FOLDERS[script]) as project:
        yield tuner(hypermodel or common.CNN(), project=project, **arguments)


def end_trial(oracle, trial, score):
    """Ends a trial that was not trained."""
    oracle.update_trial(trial.trial_id, {"val_accuracy": score, "seconds": 1.0})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def end_all_trials(oracle, score):
    """Hands out all trials that are left, and ends each with the score(trial), without training; returns them."""
    trials = []
    while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
        trials.append(trial)
        end_trial(oracle, trial, score(trial))
    return trials


@pytest.fixture(scope="session", autouse=True)
def ctrl_c():
    """Lets pytest end what it has started, where tuning's own handler would end pytest at once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run_in(folder, script, *args, **options):
    """Runs a script to its end as a user does, in a folder; the options are those of subprocess.run."""
    options = {"cwd": folder, "capture_output": True, "text": True, "timeout": 300} | options
    return subprocess.run(command(script, *args), **options)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, worker_id):
    """reference(script): a folder in which the script has searched with the SMALL options, and nobody writes.

    Beside keras_tuner_results it holds what was printed, in stdout.txt and stderr.txt. The processes of pytest-xdist,
    to which worker_id belongs, share it.
    """
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent

    def reference(script):
        folder = shared / Path(script).stem
        with filelock.FileLock(folder.with_suffix(".lock")):
            if not (folder / "stdout.txt").exists():
                folder.mkdir()
                process = run_in(folder, script, *SMALL)
                assert process.returncode == 0, process.stderr
                (folder / "stderr.txt").write_text(process.stderr)
                (folder / "stdout.txt").write_text(process.stdout)
        return folder

    return reference


@pytest.fixture
def run(tmp_path):
    """run(script, *args, **options): run_in() a folder of the test's own."""
    return functools.partial(run_in, tmp_path)


@pytest.fixture
def start(tmp_path):
    """start(script, *args, **options) starts a script; it is killed when the test ends, if it has not ended before."""
    processes = []

    def start(script, *args, **options):
        pipe = subprocess.PIPE
        options = {"cwd": tmp_path, "stdout": pipe, "stderr": pipe, "text": True} | options
        processes.append(subprocess.Popen(command(script, *args), **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
