"""The folder that the processes of a search share: whole files, the settings, and who is at work in it.

Locks belong to the operating system, which releases those of a process that dies. On a file system without locks, two
processes may run the same trial, which costs time and changes nothing.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import time

from filelock import FileLock, Timeout

from tuning.command_line import STARTED, printable, stop

ME = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"
WAYS_OUT = "--overwrite starts a new search, another --results-dir keeps both"


@contextlib.contextmanager
def whole_file(path):
    """Yields where to write a file that takes its place at `path` only once it is whole and on the disk."""
    draft = path.with_stem(f"{path.stem}_{secrets.token_hex(4)}")
    try:
        yield draft
        with open(draft, "rb+") as file, contextlib.suppress(OSError):  # some file systems don't know fsync
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path, content):
    """Writes a JSON file that is at every instant the old one or the new one."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_json(path):
    """Reads a JSON object; an empty dictionary where there is none, or not a whole one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        content = None
    return content if isinstance(content, dict) else {}


def _take(lock):
    """Whether the lock is ours now; None where the file system has no locks."""
    try:
        lock.acquire()
    except Timeout:
        return False
    except (OSError, NotImplementedError):
        return None
    return True


class Folder:
    """The folder of one search, at `path`, in which this process is at work until the context ends.

    Args:
        overwrite: whether what lies in it is deleted; not what was made since this process was started.
        settings: what decides the result of a search, by names that people read; refused if others are stored.
        defaults: settings too, but those that the hardware decides: where some are stored, these count.
    """

    def __init__(self, path, overwrite, settings, defaults):
        self.path, self._processes, file = path, path / "processes", path / "settings.json"
        self._processes.mkdir(parents=True, exist_ok=True)
        self._mine = FileLock(self._processes / ME, blocking=False, fallback_to_soft=False, thread_local=False)
        with self.lock():
            stored = read_json(file)
            left = [*path.glob("trial_*"), *path.glob("tuner*.json"), *path.glob(file.name)]
            if overwrite and stored.get("made", 0) < STARTED:
                for name in [each.name for each in self._processes.iterdir() if self.is_alive(each.name)]:
                    stop(f"{path} is in use by {name}: let it end, or use another --results-dir", status=2)
                for each in path.iterdir():
                    if each.name not in ("lock", "processes"):
                        shutil.rmtree(each) if each.is_dir() else each.unlink()
                stored = {}
            elif left and "made" not in stored:
                stop(f"{path} holds a search whose settings this version can't read: {WAYS_OUT}", status=2)
            settings = json.loads(json.dumps(settings, default=str))
            if not stored:
                stored = {"made": time.time(), "settings": defaults | settings}
                write_json(file, stored)
            was = self.settings = stored["settings"]
            now = {name: was[name] for name in defaults} | settings
            if changes := [f"{n} was {was.get(n)}, now {now.get(n)}" for n in was | now if was.get(n) != now.get(n)]:
                text = printable("; ".join(changes))
                stop(f"{path} holds a search with other settings ({text}): {WAYS_OUT}", status=2)
            _take(self._mine)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._mine.release()
        (self._processes / ME).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self):
        """The folder is ours alone, for moments; yields whether its file system has locks."""
        lock = FileLock(self.path / "lock", fallback_to_soft=False)
        try:
            yield bool(_take(lock))
        finally:
            lock.release()

    def is_alive(self, process):
        """Whether another process, of this name, is at work in the folder."""
        path = self._processes / process
        if process == ME or not path.exists():
            return False
        lock = FileLock(path, blocking=False, fallback_to_soft=False)
        taken = _take(lock)
        lock.release()
        if taken:
            path.unlink(missing_ok=True)
        return taken is False
