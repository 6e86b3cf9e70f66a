"""The folder that the processes of a search share: whole files, the settings, and who is at work in it.

Locks end with their process, however it dies. Without locks, two processes may run a trial twice: that changes nothing.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import time

from filelock import FileLock, Timeout

from tuning.command_line import STARTED, stop

WAYS_OUT = "--overwrite starts a new search, another --results-dir keeps both"


@contextlib.contextmanager
def whole_file(path):
    """Yields where to write a file that takes its place at `path` only once it is whole."""
    draft = path.with_stem(f"{path.stem}_{secrets.token_hex(4)}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path, content):
    """Writes a JSON file that is at every instant the old one or the new one."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_json(path):
    """Reads a JSON object; an empty dictionary where there is none, or not a whole one."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


@contextlib.contextmanager
def _locked(path, blocking=True):
    """Yields whether the lock at `path` is ours now; None where the file system has no locks."""
    lock = FileLock(path, blocking=blocking, fallback_to_soft=False, thread_local=False)
    try:
        ours = bool(lock.acquire())
    except (OSError, NotImplementedError) as error:
        ours = False if isinstance(error, Timeout) else None
    try:
        yield ours
    finally:
        lock.release()


class Folder(contextlib.ExitStack):
    """The folder of one search, at `path`, in which this process is at work until the context ends.

    Args:
        overwrite: whether what lies in it is deleted; not what was made since this process was started.
        settings: what decides the result of a search, by names that people read; refused if others are stored.
        defaults: settings too, but those that the hardware decides: where some are stored, these count.
    """

    def __init__(self, path, overwrite, settings, defaults):
        super().__init__()
        self.path, self._processes, file = path, path / "processes", path / "settings.json"
        self.me = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"
        self.lock = lambda: _locked(path / "lock")  # the folder is ours alone, for moments
        self._processes.mkdir(parents=True, exist_ok=True)
        with self.lock():
            stored = read_json(file)
            if overwrite and stored.get("made", 0) < STARTED:
                for name in [each.name for each in self._processes.iterdir() if self.is_alive(each.name)]:
                    stop(f"{path} is in use by {name}: let it end, or use another --results-dir", status=2)
                for each in path.iterdir():
                    if each.name not in ("lock", "processes"):
                        shutil.rmtree(each) if each.is_dir() else each.unlink()
                stored = {}
            elif "made" not in stored and [*path.glob("trial_*"), *path.glob("tuner*.json"), *path.glob(file.name)]:
                stop(f"{path} holds a search whose settings this version can't read: {WAYS_OUT}", status=2)
            settings = json.loads(json.dumps(settings, default=str))
            if not stored:
                stored = {"made": time.time(), "settings": defaults | settings}
                write_json(file, stored)
            was = self.settings = stored["settings"]
            now = {name: was[name] for name in defaults} | settings
            if changes := [f"{n} was {was.get(n)}, now {now.get(n)}" for n in was | now if was.get(n) != now.get(n)]:
                stop(f"{path} holds a search with other settings ({'; '.join(changes)}): {WAYS_OUT}", status=2)
            self.callback((self._processes / self.me).unlink, missing_ok=True)
            self.enter_context(_locked(self._processes / self.me))

    def is_alive(self, process):
        """Whether a process of this name is at work in the folder."""
        path = self._processes / process
        if process == self.me or not path.exists():
            return process == self.me
        with _locked(path, blocking=False) as ours:
            return ours is False
