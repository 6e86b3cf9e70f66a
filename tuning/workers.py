"""A process of a parallel search: who it is, and how a worker keeps in touch with its chief.

KerasTuner's distributed engine does the work: one chief serves the oracle over gRPC, any number of workers run the
trials. KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT tell a process who it is.
"""

import contextlib
import functools
import os
import socket
import sys
import threading
import time

import grpc
import keras_tuner as kt

from tuning import process

VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
PARENT_WATCH = "TUNING_WORKER_ENDS_WITH_STDIN"  # set for the workers that chief.run() starts
JOIN_SECONDS = 600  # a worker waits so long for its chief
SILENT_SECONDS = 120  # a worker that has not touched its file for so long is lost
BEAT_SECONDS = 3  # it touches its file so often

_finished = threading.Event()  # this worker's search


class WorkerError(kt.errors.FatalError):
    """A worker and its chief can't work together; the text says why. Not the fault of the trial that it ends."""


def is_chief():
    """Whether this process is the chief of a parallel search."""
    return "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker():
    """Whether this process is a worker of a parallel search."""
    return "KERASTUNER_TUNER_ID" in os.environ and not is_chief()


def check_environment():
    """Refuses KerasTuner's variables where only some are set, or the port is none; an empty one counts as not set."""
    for name in VARIABLES:
        if os.environ.get(name) == "":  # as if it were not set
            del os.environ[name]
    missing = [name for name in VARIABLES if name not in os.environ]
    if 0 < len(missing) < len(VARIABLES):
        raise process.BadInput(f"a parallel search needs {', '.join(missing)} in the environment as well")
    if not missing:
        port = os.environ["KERASTUNER_ORACLE_PORT"]
        if not (port.isdecimal() and int(port) < 2**16):
            raise process.BadInput(f"KERASTUNER_ORACLE_PORT must be the number of a port, not {port!r}")
        # Workers and chief speak directly: gRPC would send even what is for this machine through http_proxy.
        os.environ["no_grpc_proxy"] = os.environ["KERASTUNER_ORACLE_IP"]


def chief_address():
    """The chief's address, host:port."""
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"


def _knock():
    """Connects to the chief and hangs up; raises OSError where that is not possible."""
    address = os.environ["KERASTUNER_ORACLE_IP"], int(os.environ["KERASTUNER_ORACLE_PORT"])
    socket.create_connection(address, timeout=5).close()


def join_chief():
    """Waits until the chief answers; from then on, this process ends when the chief is gone.

    Raises:
        WorkerError: the chief did not answer for JOIN_SECONDS.
    """
    if PARENT_WATCH in os.environ:  # our standard input is a pipe that closes with the chief, whatever ended it
        threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    for second in range(JOIN_SECONDS):
        with contextlib.suppress(OSError):
            _knock()
            break
        if second % 60 == 30:
            print(f"Waiting for a chief at {chief_address()}", file=sys.stderr, flush=True)
        time.sleep(1)
    else:
        raise WorkerError(f"no chief at {chief_address()}: is it running, and can this machine reach it?")
    threading.Thread(target=_watch_chief, daemon=True).start()


def _watch_chief():
    # In attempts, not in seconds, which also pass while this process is suspended. A refusal comes from a machine on
    # which no chief runs; a chief that is suspended, or a network that is down for a while, does not answer at all.
    refused = failed = 0
    while refused < 3 and failed < JOIN_SECONDS:
        try:
            _knock()
            refused = failed = 0
        except ConnectionRefusedError:
            refused += 1
        except OSError:
            failed += 1
        time.sleep(1)
    if not _finished.is_set():
        process.end(1, f"{process.program()}: the chief at {chief_address()} is gone")


def heartbeat_file(folder, name):
    """The file that a worker touches while it is alive; its chief deletes it when it takes the worker for lost."""
    return folder / f"worker_{name}.alive"


def start_heartbeat(folder):
    """Touches this worker's file from now on, until leave()."""
    _finished.clear()  # in a notebook, an earlier search has set it
    path = heartbeat_file(folder, os.environ["KERASTUNER_TUNER_ID"])
    path.touch()

    def beat():
        while not _finished.wait(BEAT_SECONDS):
            check_heartbeat(folder)
            with contextlib.suppress(OSError):  # a network's file system may fail for a moment
                os.utime(path)

    threading.Thread(target=beat, daemon=True).start()


def check_heartbeat(folder):
    """Ends this worker where its chief has taken it for lost."""
    name = os.environ["KERASTUNER_TUNER_ID"]
    if not heartbeat_file(folder, name).exists() and not _finished.is_set():
        process.end(
            1, f"{process.program()}: the chief took this worker ({name}) for lost and gave its trial to another one"
        )


def leave(folder):
    """Ends the heartbeat of a worker that has no more to do."""
    _finished.set()
    heartbeat_file(folder, os.environ["KERASTUNER_TUNER_ID"]).unlink(missing_ok=True)


class ChiefClient:
    """The oracle as a worker sees it: KerasTuner's client, whose failures are not taken for a trial's."""

    def __init__(self, client, folder):
        self._client, self._folder = client, folder

    def __getattr__(self, name):
        value = getattr(self._client, name)
        if not callable(value):
            return value

        @functools.wraps(value)
        def ask(*args, **kwargs):
            check_heartbeat(self._folder)
            try:
                return value(*args, **kwargs)
            except grpc.RpcError as error:
                raise WorkerError(f"the chief at {chief_address()} failed: {error.details()}") from error

        return ask
