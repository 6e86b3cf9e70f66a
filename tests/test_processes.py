"""What a user is promised about processes that share a search: same digits, and none that hangs, is lost or stays."""

import errno
import json
import os
import re
import signal
import socket

import keras_tuner as kt
import psutil
import pytest
from conftest import DIGITS, FOLDERS, ONE_CORE, QUICK, RANDOM, SMALL, outcome, result, trials, wait_until
from machine import at_work

from tuning import folder, oracle


def project(path, name="digits"):
    return path / "keras_tuner_results" / name


@pytest.fixture
def expected(reference):
    """The outcome of a QUICK search of two processes that nothing disturbs."""
    return outcome(project(reference(DIGITS, *QUICK, "--workers", "2")))


def start_two(start, script, *options):
    """Starts a search with one more process, and the same command again, which joins it; the two that were started."""
    starter = start(script, *options, "--workers", "2")
    wait_until(lambda: len(psutil.Process(starter.pid).children()) == 1)  # it has made the settings
    return starter, start(script, *options, "--workers", "1")


def end(process):
    """The output of a process that ends well."""
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    return output


def running(search):
    """The ids of the processes that run the trials which have not ended."""
    states = [folder.read_json(path) for path in search.glob("trial_*/trial.json")]
    return [int(re.search(r"process (\d+)", each["process"])[1]) for each in states if each.get("status") == "RUNNING"]


def test_a_second_start_joins_and_three_processes_find_the_same_trials_to_the_digit(start, stored, tmp_path):
    starter, joined = start_two(start, RANDOM, *SMALL, "--max-trials", "10")  # more: each process has its share
    assert result(end(starter)) == result(end(joined))
    search = project(tmp_path, FOLDERS[RANDOM])
    assert trials(search).items() >= trials(stored(RANDOM)).items()
    assert len({json.loads(path.read_text())["process"] for path in search.glob("*/trial.json")}) == 3


@pytest.mark.parametrize("number, strategy", [(signal.SIGKILL, ()), (signal.SIGHUP, ("--bayesian",))])
def test_a_growing_space_has_one_process_digits_though_a_starter_dies(number, strategy, start, run, tmp_path):
    options, search = (*QUICK, "--max-trials", "5", "--growing", *strategy), project(tmp_path)
    assert run(DIGITS, *options, "--results-dir", "one/keras_tuner_results", **ONE_CORE).returncode == 0
    undisturbed = outcome(project(tmp_path / "one"))
    assert any("units_2" in values for values, _ in undisturbed[0].values())
    starter, joined = start_two(start, DIGITS, *options)
    wait_until(lambda: joined.pid in running(search) or starter.poll() is not None)
    starter.send_signal(number)
    starter.wait()
    wait_until(lambda: not at_work(DIGITS, "TUNING_STARTED_BY"))
    end(joined)
    assert outcome(search) == undisturbed


FIRST_CHILD_FAILS = """
import contextlib, os
with contextlib.suppress(FileExistsError, KeyError):
    os.mkdir(f"first_child_of_{os.environ['TUNING_STARTED_BY']}")
    os.write(2, b"no more GPUs")
    os._exit(1)
"""


def test_children_that_can_not_start_or_are_killed_are_named_and_replaced(start, expected, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FIRST_CHILD_FAILS)
    log, told = tmp_path / "log.txt", "Process %s of this search has ended, the others take its trial: %s\n"
    options = {"stdout": open(log, "w"), "env": os.environ | {"PYTHONPATH": str(tmp_path)}}
    starter = start(DIGITS, *QUICK, "--workers", "3", **options)
    wait_until(lambda: "no more GPUs" in log.read_text())
    children = psutil.Process(starter.pid).children
    wait_until(lambda: len(children()) == 1)  # the other one
    child = children()[0].pid
    os.kill(child, signal.SIGKILL)
    end(starter)
    output = log.read_text()
    assert output.count(f"{child}") == output.count(told % (child, "killed by signal 9")) == 1
    assert len(re.findall(told % (r"\d+", "no more GPUs"), output)) == 1
    assert outcome(project(tmp_path)) == expected


def test_two_processes_on_a_file_system_without_locks_find_the_same_trials(start, expected, tmp_path):
    code = "import fcntl\ndef flock(*args): raise OSError({}, 'no locks')\nfcntl.flock = flock"
    (tmp_path / "sitecustomize.py").write_text(code.format(errno.ENOSYS))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    processes = [start(DIGITS, *QUICK, "--workers", "1", env=environment) for _ in range(2)]
    results = [result(end(process)) for process in processes]
    assert results[0] == results[1] and outcome(project(tmp_path)) == expected


def test_of_a_trial_that_is_run_twice_the_second_result_is_dropped(tmp_path, monkeypatch):
    def flock(*args):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    space = kt.HyperParameters()
    space.Int("units", 1, 100)
    options = {"objective": kt.Objective("loss", "min"), "max_trials": 1, "seed": 1, "hyperparameters": space}
    oracles = [oracle.FolderOracle(None, **options) for _ in range(2)]
    for each in oracles:
        each.join(folder.Folder(tmp_path / "search", False, {}, {}), 1)
    ongoing = [each.create_trial("tuner0") for each in oracles]
    assert ongoing[0].hyperparameters.values == ongoing[1].hyperparameters.values
    for each, trial, score in zip(oracles, ongoing, (0.5, 0.7)):
        each.update_trial(trial.trial_id, {"loss": score})
        trial.status = "COMPLETED"
        each.end_trial(trial)
        assert trials(tmp_path / "search")[1][1] == 0.5
        assert each.create_trial("tuner0").status == "STOPPED"
    assert len([*(tmp_path / "search" / "trial_1").glob("run_*")]) == 1


def test_keras_tuner_s_own_chief_and_two_workers_of_one_name_find_the_same_trials(start, expected, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(probe.getsockname()[1])}
    variables = [address | {"KERASTUNER_TUNER_ID": name} for name in ("chief", "tuner0", "tuner0")]
    chief, *workers = (start(DIGITS, *QUICK, env=os.environ | each) for each in variables)
    assert "Total elapsed time: 0h" in end(chief)
    assert len(at_work(DIGITS, "TUNING_STARTED_BY")) == 0
    for worker in workers:
        assert "Test" not in end(worker)
    assert outcome(project(tmp_path)) == expected
