"""The processes of a parallel search.

KerasTuner's distributed engine does the work: one chief serves the oracle over gRPC, any number of workers run the
trials. KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT tell a process who it is.
"""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters comes as a Python exception
import grpc
import keras_tuner as kt

VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
PARENT_WATCH = "TUNING_WORKER_ENDS_WITH_STDIN"  # set for the workers that run_chief() starts


class WorkerError(kt.errors.FatalError):
    """A worker and its chief can't work together; the text says why. Not the fault of the trial that it ends."""


def is_chief():
    """Whether this process is the chief of a parallel search."""
    return "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker():
    """Whether this process is a worker of a parallel search."""
    return "KERASTUNER_TUNER_ID" in os.environ and not is_chief()


def missing_variables():
    """The names of KerasTuner's variables that are missing where some of them are set."""
    missing = [name for name in VARIABLES if name not in os.environ]
    return missing if len(missing) < len(VARIABLES) else []


def chief_address():
    """The chief's address, host:port."""
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"


def join_chief(seconds=40):
    """Makes a worker wait until its chief answers, and end when it is gone, where KerasTuner would wait for an hour.

    Raises:
        WorkerError: the chief did not answer for so many seconds.
    """
    if PARENT_WATCH in os.environ:  # our standard input is a pipe that closes with the chief, whatever ended it
        threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    with grpc.insecure_channel(chief_address()) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError:
            raise WorkerError(
                f"no chief answers at {chief_address()}: is it running, or at its end, and can this machine reach it?"
            )
    threading.Thread(target=_watch_chief, daemon=True).start()


def _watch_chief(seconds=3):
    # Less time than a new chief takes to start: it would know nothing of the trial that is at work here.
    address = os.environ["KERASTUNER_ORACLE_IP"], int(os.environ["KERASTUNER_ORACLE_PORT"])
    reached = time.monotonic()
    while time.monotonic() - reached < seconds:
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
            reached = time.monotonic()
        time.sleep(0.5)
    with contextlib.suppress(OSError):  # nobody may be reading
        os.write(2, f"{Path(sys.argv[0]).name}: the chief at {chief_address()} is gone\n".encode())
    os._exit(1)


@contextlib.contextmanager
def asking_chief():
    """Tells what goes wrong between a worker and its chief from what goes wrong in a trial."""
    try:
        yield
    except grpc.RpcError as error:
        raise WorkerError(f"the chief at {chief_address()} failed: {error.details()}") from error


class _LocalWorker:
    """A worker on this machine; started again with the same name, it is given the trial that it left unfinished."""

    def __init__(self, number, environment):
        self.environment = os.environ | environment | {"KERASTUNER_TUNER_ID": f"tuner{number}", PARENT_WATCH: "1"}
        self.starts = 0
        self.start()

    def start(self):
        self.starts += 1
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, *sys.argv],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            start_new_session=True,  # Ctrl-C is for the chief; its end is theirs
        )

    def has_ended(self):
        status = self.process.poll()
        if status is not None and status < 0:
            if self.starts > 3:
                raise WorkerError(f"a worker was killed {self.starts} times, by signal {-status}: too little memory?")
            print(f"A worker was killed by signal {-status}: its trial is run again")
            self.start()
            return False
        if status:
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").split("\n")
            reason = next(filter(None, reversed(lines)), "").removeprefix(f"{Path(sys.argv[0]).name}: ")
            raise WorkerError(f"a worker ended with exit status {status}: {reason}")
        return status == 0


def _start_workers(count, gpus):
    """Starts workers that share the cores, or take one GPU each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # no such on macOS
    share = {"TF_NUM_INTRAOP_THREADS": os.environ.get("TF_NUM_INTRAOP_THREADS", str(max(1, cores // count)))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    return [
        _LocalWorker(number, share | ({"CUDA_VISIBLE_DEVICES": visible[number % gpus]} if gpus else {}))
        for number in range(count)
    ]


def _free_port():
    """Makes sure that nobody else listens at the chief's address; returns its port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((os.environ["KERASTUNER_ORACLE_IP"], int(os.environ["KERASTUNER_ORACLE_PORT"])))
        except (OSError, ValueError, OverflowError) as error:
            raise WorkerError(f"the chief can't listen at {chief_address()} ({error})")
        return str(probe.getsockname()[1])


class _Failures(logging.Handler):
    """Collects what the oracle raises while it answers a worker, which gRPC only logs."""

    def __init__(self):
        super().__init__()
        self.raised = []

    def emit(self, record):
        if record.exc_info:
            self.raised.append(record.exc_info[1])


def run_chief(oracle, count, gpus, serve):
    """Serves the oracle until every trial has ended.

    Args:
        oracle: a ResumableOracle.
        count: workers to start on this machine; none where this process was told by its environment to be a chief.
        gpus: how many GPUs the workers share.
        serve: starts KerasTuner's server; it would return up to 20 seconds after the last trial.

    Raises:
        WorkerError: a worker can't do its work, or the port is taken.
        Exception: what the oracle raised while it answered a worker.
    """
    starts_workers = not is_chief()
    if starts_workers:
        os.environ |= dict(zip(VARIABLES, ("chief", "127.0.0.1", "0")))
    os.environ["KERASTUNER_ORACLE_PORT"] = _free_port()  # 0: any that is free
    failures = _Failures()
    logging.getLogger("grpc").addHandler(failures)

    def serve_or_tell():
        try:
            serve()
        except Exception as error:
            failures.raised.append(WorkerError(f"the chief's server failed: {error}"))

    def wait():
        if failures.raised:
            raise failures.raised[0]
        time.sleep(0.2)

    threading.Thread(target=serve_or_tell, daemon=True).start()
    if starts_workers:
        local = _start_workers(count, gpus)
        try:
            while not all([worker.has_ended() for worker in local]):
                wait()
        except WorkerError:
            wait()  # raises what the oracle raised, where that is the cause
            raise
        return
    while not oracle.all_handed_out or oracle.ongoing_trials:
        wait()
    farewell = time.monotonic() + 5
    while oracle.tuner_ids and time.monotonic() < farewell:  # let the other workers hear that there is no more to do
        wait()
