"""How a process behaves towards the person who started it: streams, signals, one-line errors, exit statuses."""

import builtins
import contextlib
import errno
import os
import signal
import sys
import time
from pathlib import Path

STARTED = time.monotonic()
IN_NOTEBOOK = hasattr(builtins, "__IPYTHON__")  # %run: the process is the kernel, which must outlive the search

# Where a standard stream was closed, the next file that is opened would take its number, and all that is written to it.
while (_descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
    pass
os.close(_descriptor)
for _name in ("stdout", "stderr"):
    if getattr(sys, _name) is None:
        setattr(sys, _name, open(os.devnull, "w"))
_STDERR = os.dup(2)


class BadInput(Exception):
    """What the user asked for is refused: one line on stderr, exit status 2."""


class SearchFailed(Exception):
    """Something failed while running: one line on stderr, exit status 1."""


def program():
    """The name of the script that was started."""
    return Path(sys.argv[0]).name


def resume_hint():
    """What to do after an interruption, a sentence."""
    without = ", without --overwrite, which starts a new one" if "--overwrite" in sys.argv else ""
    return f"Completed trials are kept: the same command resumes the search{without}."


def end(status, line):
    """Ends the process at once, from any thread or signal handler, with a line on stderr."""
    with contextlib.suppress(OSError):  # the reader of a pipe may be gone
        os.write(_STDERR, f"{line}\n".encode(errors="replace"))
    os._exit(status)


@contextlib.contextmanager
def stderr_off():
    """Discards what is written to file descriptor 2: TensorFlow's C++ code logs to it, whatever its log level."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(_STDERR, 2)


# TensorFlow's import takes seconds, so this comes before it. The process ends right in the handler: a search can be
# resumed after its end at any instant, and an exception could be taken for the failure of a trial.
for _number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(_number) != signal.SIG_IGN and not IN_NOTEBOOK:  # nohup and background jobs ignore SIGINT
        signal.signal(_number, lambda number, frame: end(128 + number, f"\nInterrupted. {resume_hint()}"))

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_storage_error(error):
    """Whether an exception is about files or the terminal; TensorFlow and HDF5 have their own exceptions for these."""
    reasons = [os.strerror(number) for number in (*NO_SPACE, errno.EROFS, errno.EIO)]
    return isinstance(error, OSError) or any(reason in str(error) for reason in reasons)


def one_line(error):
    """An exception's text up to its first line break; the system's own words where it has an error number."""
    if isinstance(error, OSError) and error.errno:  # HDF5 buries them in a page of text
        return os.strerror(error.errno) + (f": {error.filename}" if error.filename else "")
    return str(error).strip().partition("\n")[0] or type(error).__name__


def ignore_uncaught_storage_errors():
    """Lets Python print nothing of them: on a full disk, HDF5 fails again while it closes its file."""
    report, report_unraisable = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda kind, error, where: is_storage_error(error) or report(kind, error, where)
    sys.unraisablehook = lambda found: is_storage_error(found.exc_value) or report_unraisable(found)
