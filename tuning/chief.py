"""The chief of a parallel search: it serves the oracle, starts workers on this machine, and notices lost ones."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

from tuning import environment, process
from tuning.workers import PARENT_WATCH, SILENT_SECONDS, VARIABLES, WorkerError, chief_address, heartbeat_file, is_chief

PAUSE = 0.2  # seconds between two looks at the workers


class _LocalWorker:
    """A worker on this machine; it is started again when something kills it."""

    def __init__(self, number, variables):
        self.name = f"tuner{number}"
        self.environment = os.environ | variables | {"KERASTUNER_TUNER_ID": self.name, PARENT_WATCH: "1"}
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

    def check(self):
        """Starts the worker again where something has killed it; raises WorkerError where it has failed."""
        status = self.process.poll()
        if status is not None and status < 0:
            if self.starts > 3:
                raise WorkerError(f"a worker was killed {self.starts} times, by signal {-status}: too little memory?")
            print(f"A worker was killed by signal {-status}: its trial is run again")
            self.start()
        elif status:
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").split("\n")
            reason = next(filter(None, reversed(lines)), "").removeprefix(f"{process.program()}: ")
            raise WorkerError(f"a worker ended with exit status {status}: {reason}")


def _start_workers(count):
    """Starts workers that share the cores, or take one GPU each."""
    gpus = len(environment.gpus)
    threads = str(max(1, environment.cores() // count))
    names = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"
    share = {name: os.environ.get(name, threads) for name in names}
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
        except OSError as error:
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


class _Heartbeats:
    """Finds the workers that are lost."""

    def __init__(self, oracle, folder):
        self.oracle, self.folder = oracle, folder
        self.silent = {}  # by a worker's name: when its file was touched, and for how long that has not changed since

    def lost(self):
        """The names of the workers that are silent for too long; their trials are missing again."""
        names = []
        for name in list(self.oracle.tuner_ids):
            path = heartbeat_file(self.folder, name)
            touched = None
            with contextlib.suppress(OSError):
                touched = path.stat().st_mtime_ns
            before, seconds = self.silent.get(name, (touched, 0))
            # In pauses, not by the clock: this process may have been suspended, and its workers with it.
            self.silent[name] = touched, seconds + PAUSE if touched == before else 0
            if self.silent[name][1] > SILENT_SECONDS:
                path.unlink(missing_ok=True)
                self.silent.pop(name)
                self.oracle.lose_worker(name)
                names.append(name)
        return names


def run(oracle, folder, count, serve):
    """Serves the oracle until every trial has ended.

    Args:
        oracle: a RandomSearchOracle of tuning.oracles.
        folder: that of the search.
        count: workers to start on this machine; none where this process was told by its environment to be a chief.
        serve: starts KerasTuner's server; it would return up to 20 seconds after the last trial.

    Raises:
        WorkerError: a worker can't do its work, or the port is taken.
        Exception: what the oracle raised while it answered a worker.
    """
    starts_workers = not is_chief()
    if starts_workers:
        os.environ |= dict(zip(VARIABLES, ("chief", "127.0.0.1", "0")))
    os.environ["KERASTUNER_ORACLE_PORT"] = _free_port()  # 0: any that is free
    for path in folder.glob("worker_*.alive"):  # of an earlier run
        path.unlink()
    failures, heartbeats, local = _Failures(), _Heartbeats(oracle, folder), []
    logging.getLogger("grpc").addHandler(failures)

    def serve_or_tell():
        try:
            serve()
        except Exception as error:
            failures.raised.append(WorkerError(f"the chief's server failed: {error}"))

    def wait():
        if failures.raised:
            raise failures.raised[0]
        lost = heartbeats.lost()
        for worker in local:
            if worker.name in lost:
                worker.process.kill()  # and it is started again
            worker.check()
        time.sleep(PAUSE)

    threading.Thread(target=serve_or_tell, daemon=True).start()
    if starts_workers:
        local += _start_workers(count)
    try:
        while not oracle.is_finished:
            wait()
        farewell = time.monotonic() + 5
        while oracle.tuner_ids and time.monotonic() < farewell:  # let the others hear that there is no more to do
            wait()
    except WorkerError as error:
        raise next(iter(failures.raised), error)  # what the oracle raised is the cause
    finally:
        for worker in local:
            worker.process.kill()
            worker.process.wait()
            heartbeat_file(folder, worker.name).unlink(missing_ok=True)
        if starts_workers:
            for name in VARIABLES:  # what comes next is not parallel
                del os.environ[name]
