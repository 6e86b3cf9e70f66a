"""Parallel search with real processes on the loopback: the same result, and no fault that hangs or leaves a process."""

import errno
import os
import resource
import signal
import socket
from pathlib import Path

import pytest
from conftest import FOLDERS, RANDOM, SMALL, TRIALS, assert_one_line, read_until, trial_rows, wait_until

pytestmark = pytest.mark.slow

TIMEOUT = 300  # a hang, on any machine


@pytest.fixture
def begin(start):
    """begin(*options, **environment) starts a small search in a process group of its own."""

    def begin(*options, **environment):
        return start(RANDOM, *SMALL, *options, env=os.environ | environment, start_new_session=True)

    return begin


def end(process):
    """The exit status, the output and the errors of a process."""
    output, errors = process.communicate(timeout=TIMEOUT)
    return process.returncode, output, errors


def at_work(folder):
    """The process ids of our script whose working directory is the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            here = Path(os.readlink(path / "cwd")) == folder
            if here and RANDOM.encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:  # it has ended meanwhile
            pass
    return found


def workers_of(process, folder):
    return [number for number in at_work(folder) if number != process.pid]


def trials(folder):
    return trial_rows(folder / "keras_tuner_results" / FOLDERS[RANDOM])


def result(output):
    return [line for line in output.splitlines() if line.startswith(("Best validation accuracy", "Test accuracy"))]


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
        assert len(workers_of(chief, tmp_path)) == 2
        kill(chief.pid, number)
        status, _, errors = end(chief)
        assert status == (-number if number == signal.SIGKILL else 128 + number)
        assert "Traceback" not in errors
        wait_until(lambda: not at_work(tmp_path))
    chief = begin("--workers", "2")
    for _ in range(2):  # until both have a trial
        read_until(chief, f" of {TRIALS}: units")
    os.kill(workers_of(chief, tmp_path)[0], signal.SIGKILL)
    status, output, errors = end(chief)
    assert (status, errors) == (0, "") and "killed by signal 9" in output
    assert (trials(tmp_path), result(output)) == serial


def test_workers_end_with_a_chief_that_is_killed_while_they_start(begin, tmp_path):
    chief = begin("--workers", "2")
    wait_until(lambda: len(workers_of(chief, tmp_path)) == 2)
    chief.kill()
    wait_until(lambda: not at_work(tmp_path), seconds=30)  # one on another machine would wait for 40 s and its start


def test_a_worker_of_another_machine_ends_when_its_chief_is_killed(begin):
    port, long_epochs = free_port(), ("--train-images", "48000", "--batch-size", "1")
    chief, worker = begin(*long_epochs, **variables("chief", port)), begin(*long_epochs, **variables("tuner0", port))
    read_until(worker, "Epoch 1")
    chief.kill()
    status, _, errors = end(worker)
    assert status == 1
    assert_one_line(errors, f"the chief at 127.0.0.1:{port} is gone")


def test_a_worker_without_a_chief_says_so_with_the_address(begin):
    port = free_port()
    status, _, errors = end(begin(**variables("tuner0", port)))
    assert status == 1
    assert_one_line(errors, f"127.0.0.1:{port}")


def test_a_full_disk_ends_the_chief_and_its_worker_in_one_line_each(begin):
    port = free_port()
    chief, worker = begin(**variables("chief", port)), begin(**variables("tuner0", port))
    resource.prlimit(chief.pid, resource.RLIMIT_FSIZE, (2400, 2400))  # too small for a trial's file with its metrics
    status, _, errors = end(chief)
    assert status == 1
    assert_one_line(errors, os.strerror(errno.EFBIG), "the same command goes on")
    status, _, errors = end(worker)
    assert status == 1
    assert_one_line(errors, "chief", port)


def test_a_full_disk_ends_a_search_with_workers_in_one_line(begin, tmp_path):
    chief = begin("--workers", "2")
    resource.prlimit(chief.pid, resource.RLIMIT_FSIZE, (2400, 2400))
    status, _, errors = end(chief)
    assert status == 1
    assert_one_line(errors, os.strerror(errno.EFBIG), "the same command goes on")
    wait_until(lambda: not at_work(tmp_path))


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


def test_a_worker_that_fails_to_start_ends_the_search_with_its_reason(begin, tmp_path):
    broken = "import os, sys\nif os.environ.get('KERASTUNER_TUNER_ID') == 'tuner1': os.write(2, b'no GPU'), os._exit(1)"
    (tmp_path / "sitecustomize.py").write_text(broken)
    status, _, errors = end(begin("--workers", "2", PYTHONPATH=str(tmp_path)))
    assert status == 1
    assert_one_line(errors, "no GPU")
    wait_until(lambda: not at_work(tmp_path))
