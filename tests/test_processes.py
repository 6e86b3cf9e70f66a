"""What a user is promised about processes that share a search: same digits, and none that hangs, is lost or stays."""

import errno
import json
import os
import re
import socket

from tuning import environment  # isort: skip (first: it sets up TensorFlow)

import keras_tuner as kt
import psutil
import pytest
from conftest import BAYESIAN, DIGITS, FOLDERS, RANDOM, SMALL, outcome, result, trials, wait_until
from machine import at_work
from tuning import folder, oracle, proposals

QUICK = ("--epochs", "2", "--max-trials", "5")
ONE_CORE = {"preexec_fn": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})}


def project(path, name="digits"):
    return path / "keras_tuner_results" / name


@pytest.fixture
def expected(reference):
    """expected(*options): the outcome of a QUICK search of two processes that nothing disturbs."""
    return lambda *options: outcome(project(reference(DIGITS, *QUICK, *options, "--workers", "2")))


@pytest.fixture
def two(start):
    """two(script, *options): starts a search with one more process, and the same command again, which joins it."""

    def two(script, *options):
        starter = start(script, *options, "--workers", "2")
        wait_until(lambda: len(psutil.Process(starter.pid).children()) == 1)  # it has made the settings
        return starter, start(script, *options, "--workers", "1")

    return two


def end(process):
    """The output of a process that ends well."""
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    return output


def running(search):
    """The ids of the processes that run the trials which have not ended."""
    states = [folder.read_json(path) for path in search.glob("trial_*/trial.json")]
    return [int(re.search(r"process (\d+)", each["process"])[1]) for each in states if each.get("status") == "RUNNING"]


def test_one_core_finds_the_trials_of_several_processes_to_the_digit(stored, run, tmp_path):
    process = run(BAYESIAN, *SMALL, **ONE_CORE)
    assert process.returncode == 0 and ", 1 trial at a time\n" in process.stdout
    assert outcome(project(tmp_path, FOLDERS[BAYESIAN])) == outcome(stored(BAYESIAN))


def test_a_second_start_joins_and_three_processes_find_the_same_trials_to_the_digit(two, reference, stored, tmp_path):
    starter, joined = two(RANDOM, *SMALL)
    assert result(end(starter)) == result(end(joined)) == result((reference(RANDOM) / "stdout.txt").read_text())
    search = project(tmp_path, FOLDERS[RANDOM])
    assert outcome(search) == outcome(stored(RANDOM))
    assert len({json.loads(path.read_text())["process"] for path in search.glob("*/trial.json")}) == 3


@pytest.mark.parametrize("strategy", [(), ("--bayesian",)], ids=["random", "bayesian"])
def test_a_growing_space_has_the_same_digits_with_any_number_of_processes(strategy, two, run, expected, tmp_path):
    options = (*QUICK, "--growing", *strategy)
    trials_of_two = expected("--growing", *strategy)
    assert any("units_2" in values for values, _ in trials_of_two[0].values())
    starter, joined = two(DIGITS, *options)
    wait_until(lambda: len(trials(project(tmp_path))) >= 2)
    starter.kill()
    end(joined)
    assert outcome(project(tmp_path)) == trials_of_two
    assert run(DIGITS, *options, "--results-dir", "one/keras_tuner_results", **ONE_CORE).returncode == 0
    assert outcome(project(tmp_path / "one")) == trials_of_two


def test_a_killed_child_is_named_in_one_line_and_its_trial_is_taken_over(start, expected, tmp_path):
    starter = start(DIGITS, *QUICK, "--workers", "2")
    wait_until(lambda: set(running(project(tmp_path))) - {starter.pid})
    (child,) = psutil.Process(starter.pid).children()
    child.kill()
    output = end(starter)
    told = f"Process {child.pid} of this search has ended, the others take its trial: killed by signal 9\n"
    assert output.count(f"{child.pid}") == output.count(told) == 1
    assert outcome(project(tmp_path)) == expected()


def test_a_child_that_can_not_start_is_named_with_its_reason_and_the_search_goes_on(start, expected, tmp_path):
    broken = "import os\nif 'TUNING_STARTED_BY' in os.environ: os.write(2, b'no more GPUs'), os._exit(1)"
    (tmp_path / "sitecustomize.py").write_text(broken)
    starter = start(DIGITS, *QUICK, "--workers", "2", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert re.search(r"\nProcess \d+ of this search has ended, .*: no more GPUs\n", end(starter))
    assert outcome(project(tmp_path)) == expected()


def test_a_killed_starter_leaves_no_process_behind_and_one_that_joined_goes_on(two, expected, tmp_path):
    starter, joined = two(DIGITS, *QUICK, "--bayesian")
    wait_until(lambda: starter.pid in running(project(tmp_path)))
    starter.kill()
    starter.wait()
    wait_until(lambda: not at_work(DIGITS, "TUNING_STARTED_BY"))
    end(joined)
    assert outcome(project(tmp_path)) == expected("--bayesian")


def test_two_processes_on_a_file_system_without_locks_find_the_same_trials(start, expected, tmp_path):
    code = "import fcntl\ndef flock(*args): raise OSError({}, 'no locks')\nfcntl.flock = flock"
    (tmp_path / "sitecustomize.py").write_text(code.format(errno.ENOSYS))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    processes = [start(DIGITS, *QUICK, "--workers", "1", env=environment) for _ in range(2)]
    results = [result(end(process)) for process in processes]
    assert results[0] == results[1] and outcome(project(tmp_path)) == expected()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_of_a_trial_that_is_run_twice_the_second_result_is_dropped(number, tmp_path, monkeypatch):
    def flock(*args):
        raise OSError(number, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    space, oracles = kt.HyperParameters(), []
    space.Int("units", 1, 100)
    for _ in range(2):
        shared = folder.Folder(tmp_path / "search", overwrite=False)
        shared.settle({}, {}, environment.versions())
        options = {"objective": kt.Objective("loss", "min"), "max_trials": 1, "seed": 1, "hyperparameters": space}
        oracles.append(oracle.FolderOracle(shared, proposals.propose_random, False, **options))
        oracles[-1].verbose = 0
    ongoing = [each.create_trial("tuner0") for each in oracles]
    assert ongoing[0].hyperparameters.values == ongoing[1].hyperparameters.values
    for each, trial, score in zip(oracles, ongoing, (0.5, 0.7)):
        each.update_trial(trial.trial_id, {"loss": score})
        trial.status = "COMPLETED"
        each.end_trial(trial)
        assert trials(tmp_path / "search")[1][1] == 0.5
        assert each.create_trial("tuner0").status == "STOPPED"
    assert len([*(tmp_path / "search" / "trial_1").glob("run_*")]) == 1


@pytest.mark.parametrize("names", [("tuner0", "tuner1"), ("tuner0", "tuner0")], ids=["two names", "one name"])
def test_keras_tuner_s_own_chief_and_two_workers_find_the_trials_of_two_processes(names, start, expected, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(probe.getsockname()[1])}
    chief, *workers = (
        start(DIGITS, *QUICK, env=os.environ | address | {"KERASTUNER_TUNER_ID": name}) for name in ("chief", *names)
    )
    assert "Total elapsed time: 0h" in end(chief)
    assert len(at_work(DIGITS, "TUNING_STARTED_BY")) == 0
    for worker in workers:
        assert "Test" not in end(worker)
    assert outcome(project(tmp_path)) == expected()
