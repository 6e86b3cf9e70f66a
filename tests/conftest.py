"""What the tests share: pytest loads it first, so that the repository's modules can be imported from anywhere."""

import csv
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so its children
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # two test files run at a time: or their threads wait for each other

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RANDOM, BAYESIAN = "random_search_tuning.py", "bayesian_tuning.py"
FOLDERS = {RANDOM: "fashion_mnist_cnn_random_search", BAYESIAN: "fashion_mnist_cnn_bayesian_optimization"}

DIGITS = "tests/digits_tuning.py"  # the engine on another problem, with a smaller network
TRIALS = 6  # Bayesian optimisation proposes two of them
SMALL = ("--epochs", "2", "--train-images", "400", "--max-trials", str(TRIALS))
QUICK = ("--epochs", "2", "--max-trials", "4")  # for the digits
ONE_CORE = {"preexec_fn": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})}


def command(script, *args):
    """The command line of a script, as a list: a name in the repository's root, or a path."""
    return [sys.executable, str(ROOT / script), *map(str, args)]


def run_in(folder, script, *args, **options):
    """Runs a script to its end as a user does, in a folder; the options are those of subprocess.run."""
    options = {"cwd": folder, "capture_output": True, "text": True, "timeout": 300} | options
    return subprocess.run(command(script, *args), **options)


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
    """The rows of a search's trials.csv, the best one first, without the times, which differ from run to run."""
    with open(project / "trials.csv", newline="") as file:
        return [{n: v for n, v in row.items() if n not in ("started", "seconds")} for row in csv.DictReader(file)]


def trials(project):
    """The hyperparameters and the score of each trial that has ended, all digits, by the trials' numbers."""
    states = [json.loads(path.read_text()) for path in project.glob("trial_*/trial.json")]
    ended = [state for state in states if state["status"] in ("COMPLETED", "FAILED")]
    return {int(state["trial_id"]): (state["proposed"], state["score"]) for state in ended}


def outcome(project):
    """What must not depend on interruptions and processes: the trials, and the SHA-256 of the best one's weights."""
    best = project / f"trial_{trial_rows(project)[0]['trial']}"
    weights = best / json.loads((best / "trial.json").read_text())["run"] / "checkpoint.weights.h5"
    return trials(project), trial_rows(project), hashlib.sha256(weights.read_bytes()).hexdigest()


def result(output):
    """The last lines of a search's output, but for the time."""
    return output[output.index("Best hyperparameters:") : output.index("Total elapsed time:")]


@pytest.fixture(scope="session")
def reference(tmp_path_factory, worker_id):
    """reference(script, *options): a folder in which the script has searched with the SMALL options, and nobody writes.

    Beside keras_tuner_results it holds what was printed, in stdout.txt and stderr.txt. The processes of pytest-xdist,
    to which worker_id belongs, share it.
    """
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent

    def reference(script, *options):
        folder = shared / "_".join([Path(script).stem, *options])
        with filelock.FileLock(folder.with_suffix(".lock")):
            if not (folder / "stdout.txt").exists():
                folder.mkdir()
                process = run_in(folder, script, *(options or SMALL))
                assert process.returncode == 0, process.stderr
                (folder / "stderr.txt").write_text(process.stderr)
                (folder / "stdout.txt").write_text(process.stdout)
        return folder

    return reference


@pytest.fixture
def stored(reference):
    """stored(script): the folder of a search with the SMALL options that has ended, nobody's to write in."""
    return lambda script: reference(script) / "keras_tuner_results" / FOLDERS[script]


@pytest.fixture
def finished(stored, tmp_path):
    """finished(script): a copy of it of the test's own, where the script looks for it."""
    return lambda script: shutil.copytree(stored(script), tmp_path / "keras_tuner_results" / FOLDERS[script])


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
