"""Parallel search with real processes on the loopback: the same result, and no fault that hangs or leaves a process."""

import errno
import os
import resource
import signal
import socket
import subprocess
import time

import tuning  # isort: skip (first: it sets up TensorFlow)

import pytest
from conftest import FOLDERS, RANDOM, ROOT, SMALL, TRIALS, assert_one_line, read_until, trial_rows, wait_until
from machine import at_work

pytestmark = pytest.mark.slow

TIMEOUT = 300  # a hang, on any machine
TWO = ("--max-trials", "2")


@pytest.fixture
def begin(start):
    """begin(*options, script=..., **environment) starts a small search in a process group of its own."""

    def begin(*options, script=RANDOM, **environment):
        return start(script, *SMALL, *options, env=os.environ | environment, start_new_session=True)

    return begin


@pytest.fixture
def impatient(tmp_path):
    """impatient(**constants): a script like the random search, but for these waiting times in seconds."""

    def impatient(**constants):
        script = tmp_path / f"impatient_{RANDOM}"
        script.write_text(f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
import tuning.chief, tuning.workers
for module in tuning.chief, tuning.workers:
    vars(module).update({constants})
runpy.run_path({str(ROOT / RANDOM)!r}, run_name="__main__")
""")
        return script

    return impatient


def end(process):
    """The exit status, the output and the errors of a process."""
    output, errors = process.communicate(timeout=TIMEOUT)
    return process.returncode, output, errors


def local_workers():
    """The ids of the workers that a chief has started; itself, and what it forks for an instant, lack the variable."""
    return at_work(RANDOM, "KERASTUNER_TUNER_ID")


def trials(folder):
    rows = trial_rows(folder / "keras_tuner_results" / FOLDERS[RANDOM])
    return sorted(rows, key=lambda row: int(row["trial"]))


def result(output):
    """The last lines of the output but the time."""
    return output[output.index("Best hyperparameters:"):output.index("Total elapsed time:")]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def variables(name, port):
    return {"KERASTUNER_TUNER_ID": name, "KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}


@pytest.fixture
def serial(reference):
    """The trials and the result of the search with one worker."""
    folder = reference(RANDOM)
    return trials(folder), result((folder / "stdout.txt").read_text())


# --- The same result --------------------------------------------------------------------------------------------------


def test_chief_and_workers_told_by_the_environment_give_the_same_result(begin, serial, tmp_path):
    port = free_port()
    chief = begin(**variables("chief", port))
    workers = [begin("--overwrite", **variables(f"tuner{number}", port)) for number in range(2)]
    status, output, errors = end(chief)
    assert (status, errors) == (0, "")
    assert (trials(tmp_path), result(output)) == serial
    for worker in workers:
        status, output, errors = end(worker)
        assert (status, errors) == (0, "") and "Test accuracy" not in output


def test_after_the_end_of_a_chief_and_of_a_worker_the_same_command_ends_with_the_same_result(begin, serial, tmp_path):
    for number, kill in ((signal.SIGINT, os.killpg), (signal.SIGKILL, os.kill)):  # Ctrl-C is for the process group
        chief = begin("--workers", "2")
        read_until(chief, f"Trial 2 of {TRIALS}")
        assert len(local_workers()) == 2
        kill(chief.pid, number)
        status, _, errors = end(chief)
        assert status == (-number if number == signal.SIGKILL else 128 + number)
        assert "Traceback" not in errors
        wait_until(lambda: not at_work(RANDOM))
    chief = begin("--workers", "2")
    for _ in range(2):  # until both have a trial
        read_until(chief, f" of {TRIALS}: units")
    os.kill(local_workers()[0], signal.SIGKILL)
    status, output, errors = end(chief)
    assert (status, errors) == (0, "") and "killed by signal 9" in output
    assert (trials(tmp_path), result(output)) == serial


def test_a_proxy_is_not_asked_for_the_way_to_the_chief(begin, serial, tmp_path):
    names = "http_proxy", "https_proxy", "grpc_proxy", "all_proxy"
    dead = {name: "http://127.0.0.1:9" for each in names for name in (each, each.upper())}
    status, _, errors = end(begin("--workers", "2", *TWO, **dead))
    assert (status, errors) == (0, "")
    assert trials(tmp_path) == serial[0][:2]


def test_a_worker_that_starts_before_its_chief_says_what_it_waits_for_and_joins(begin, start, serial, tmp_path):
    port = free_port()
    options = {"env": os.environ | variables("tuner0", port), "stderr": subprocess.STDOUT}
    worker = start(RANDOM, *SMALL, *TWO, **options)
    read_until(worker, f"Waiting for a chief at 127.0.0.1:{port}")
    chief = begin(*TWO, **variables("chief", port))
    assert end(chief)[0] == end(worker)[0] == 0
    assert trials(tmp_path) == serial[0][:2]


# --- Suspended and lost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers_too", [True, False], ids=["with its workers", "alone"])
def test_a_suspended_chief_goes_on_where_it_was(begin, impatient, serial, tmp_path, workers_too):
    chief = begin("--workers", "2", *TWO, script=impatient(SILENT_SECONDS=10))
    read_until(chief, "Trial 2 of")
    suspended = at_work(RANDOM) if workers_too else [chief.pid]
    for number in suspended:
        os.kill(number, signal.SIGSTOP)
    time.sleep(15)  # longer than a worker may be silent
    for number in suspended:
        os.kill(number, signal.SIGCONT)
    status, output, errors = end(chief)
    assert (status, errors) == (0, "") and "lost" not in output and "killed" not in output
    assert trials(tmp_path) == serial[0][:2]


def test_the_trial_of_a_lost_worker_goes_to_one_that_had_nothing_left_to_do(begin, impatient, serial, tmp_path):
    port = free_port()
    # Time enough for the other worker to start and to end the other trial.
    chief = begin(*TWO, script=impatient(SILENT_SECONDS=25), **variables("chief", port))
    lost = begin(*TWO, **variables("first", port))
    read_until(lost, "Epoch 1")
    lost.send_signal(signal.SIGSTOP)
    survivor = begin(*TWO, **variables("second", port))
    read_until(chief, "Worker first is taken for lost after 25 s of silence: trial 1 goes to another one")
    lost.send_signal(signal.SIGCONT)
    status, _, errors = end(lost)
    assert status == 1
    assert_one_line(errors, "took this worker (first) for lost and gave its trial to another one")
    for process in chief, survivor:
        status, _, errors = end(process)
        assert (status, errors) == (0, "")
    assert trials(tmp_path) == serial[0][:2]


def test_lost_workers_of_this_machine_are_replaced(begin, impatient, serial, tmp_path):
    chief = begin("--workers", "2", *TWO, script=impatient(SILENT_SECONDS=10))
    read_until(chief, "Trial 2 of")
    for lost in local_workers():
        os.kill(lost, signal.SIGSTOP)
    status, output, errors = end(chief)
    assert (status, errors) == (0, "") and output.count("is taken for lost") == 2
    assert trials(tmp_path) == serial[0][:2]
    assert not at_work(RANDOM)


# --- Nothing stays behind ---------------------------------------------------------------------------------------------


def test_workers_end_with_a_chief_that_is_killed_while_they_start(begin):
    chief = begin("--workers", "2")
    wait_until(lambda: len(local_workers()) == 2)
    chief.kill()
    wait_until(lambda: not at_work(RANDOM), seconds=60)  # one on another machine would wait for ten minutes


def test_a_worker_of_another_machine_ends_when_its_chief_is_killed(begin):
    port, long_epochs = free_port(), ("--train-images", "48000", "--batch-size", "1")
    chief, worker = begin(*long_epochs, **variables("chief", port)), begin(*long_epochs, **variables("tuner0", port))
    read_until(worker, "Epoch 1")
    chief.kill()
    status, _, errors = end(worker)
    assert status == 1
    assert_one_line(errors, f"the chief at 127.0.0.1:{port} is gone")


def test_a_full_disk_ends_the_chief_and_its_worker_in_one_line_each(begin):
    port = free_port()
    chief, worker = begin(**variables("chief", port)), begin(**variables("tuner0", port))
    resource.prlimit(chief.pid, resource.RLIMIT_FSIZE, (2400, 2400))  # too small for a trial's file with its metrics
    status, _, errors = end(chief)
    assert status == 1
    assert_one_line(errors, os.strerror(errno.EFBIG), "the same command resumes")
    status, _, errors = end(worker)
    assert status == 1
    assert_one_line(errors, "chief", port)


def test_a_full_disk_ends_a_search_with_workers_in_one_line(begin):
    chief = begin("--workers", "2")
    resource.prlimit(chief.pid, resource.RLIMIT_FSIZE, (2400, 2400))
    status, _, errors = end(chief)
    assert status == 1
    assert_one_line(errors, os.strerror(errno.EFBIG), "the same command resumes")
    wait_until(lambda: not at_work(RANDOM))


# --- What can't work is said ------------------------------------------------------------------------------------------


def test_a_worker_without_a_chief_gives_up_and_names_the_address(begin, impatient):
    port = free_port()
    status, _, errors = end(begin(script=impatient(JOIN_SECONDS=3), **variables("tuner0", port)))
    assert status == 1
    assert_one_line(errors, f"no chief at 127.0.0.1:{port}")


def test_a_worker_with_other_options_than_its_chief_is_refused_and_the_search_goes_on(begin, serial, tmp_path):
    port = free_port()
    chief = begin(*TWO, **variables("chief", port))
    settings = tmp_path / "keras_tuner_results" / FOLDERS[RANDOM] / "settings.json"
    wait_until(settings.exists)
    status, _, errors = end(begin(*TWO, "--seed", "2", **variables("tuner0", port)))
    assert status == 2
    assert_one_line(errors, "seed was 1, now 2", "a worker needs the options of its chief")
    assert end(begin(*TWO, **variables("tuner1", port)))[0] == end(chief)[0] == 0
    assert trials(tmp_path) == serial[0][:2]


def test_a_chief_whose_port_is_taken_says_so(begin):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, errors = end(begin(**variables("chief", port)))
    assert status == 1
    assert_one_line(errors, f"127.0.0.1:{port}")


def test_a_missing_variable_is_named(begin):
    status, _, errors = end(begin(KERASTUNER_TUNER_ID="chief", KERASTUNER_ORACLE_IP="127.0.0.1"))
    assert status == 2
    assert_one_line(errors, "KERASTUNER_ORACLE_PORT")


@pytest.mark.parametrize("port", ["http", "99999", "-1"])
def test_what_is_no_port_is_refused(monkeypatch, port):
    for name, value in variables("tuner0", port).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(tuning.BadInput, match=f"KERASTUNER_ORACLE_PORT must be the number of a port, not '{port}'"):
        tuning.workers.check_environment()


def test_empty_variables_start_no_parallel_search(monkeypatch):
    for name in tuning.workers.VARIABLES:
        monkeypatch.setenv(name, "")
    tuning.workers.check_environment()
    assert not tuning.workers.is_worker()


def test_a_worker_that_fails_to_start_ends_the_search_with_its_reason(begin, tmp_path):
    broken = "import os, sys\nif os.environ.get('KERASTUNER_TUNER_ID') == 'tuner1': os.write(2, b'no GPU'), os._exit(1)"
    (tmp_path / "sitecustomize.py").write_text(broken)
    status, _, errors = end(begin("--workers", "2", PYTHONPATH=str(tmp_path)))
    assert status == 1
    assert_one_line(errors, "no GPU")
    wait_until(lambda: not at_work(RANDOM))
