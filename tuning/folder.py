"""The folder that the processes of a search share: its trials' files, its settings, and who is at work in it.

Nothing here knows of hyperparameters. All that is written takes its place whole; what can't be read is missing. Locks
belong to the operating system, which releases those of a process that dies. On a file system without locks, two
processes may run the same trial, which costs time and changes nothing.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import time

from filelock import FileLock, Timeout

from tuning import command_line

ME = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"
WAYS_OUT = "--overwrite starts a new search, another --results-dir keeps both"
NO_LOCKS = errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP


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
        return {}
    return content if isinstance(content, dict) else {}


def _take(lock):
    """Whether the lock is ours now: None where the file system has no locks."""
    try:
        lock.acquire()
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise
        return None
    return True


class Folder:
    """The folder of one search.

    Args:
        path: where it is, or will be; it is made if need be.
        overwrite: whether what lies in it is to be deleted; not what was made after this process was started.
    """

    def __init__(self, path, overwrite):
        self.path = path
        self._processes = path / "processes"
        self._processes.mkdir(parents=True, exist_ok=True)
        self._mine = self._lock(self._processes / ME, blocking=False)
        with self.lock():
            made = self.settings().get("made", 0)
            if overwrite and made < command_line.STARTED:
                for process in self._living():
                    command_line.stop(f"{path} is in use by {process}: let it end, or use another --results-dir", 2)
                self._empty()
            elif not made and any(path.glob("*trial_*")) or (path / "tuner0.json").exists():
                command_line.stop(f"{path} holds trials, but no settings that this version can read: {WAYS_OUT}", 2)
            _take(self._mine)

    def _lock(self, path, **options):
        return FileLock(path, fallback_to_soft=False, **options)

    @contextlib.contextmanager
    def lock(self):
        """The folder is ours alone, for moments; yields whether its file system has locks."""
        lock = self._lock(self.path / "lock")
        held = _take(lock)
        try:
            yield bool(held)
        finally:
            lock.release()

    def leave(self):
        """This process is not at work in the folder any more."""
        self._mine.release()
        (self._processes / ME).unlink(missing_ok=True)

    def is_alive(self, process):
        """Whether the process of this name is at work in the folder; call it under the lock."""
        path = self._processes / process
        if process == ME or not path.exists():
            return process == ME and self._mine.is_locked
        lock = self._lock(path, blocking=False)
        taken = _take(lock)
        lock.release()
        if taken:
            path.unlink()
        return taken is False

    def _living(self):
        names = [path.name for path in self._processes.iterdir()]
        return [name for name in names if name != ME and self.is_alive(name)]

    def _empty(self):
        # Not the folder itself, which may be a link; the settings last, so that an interrupted deletion can go on.
        kept = {"lock", "processes", "settings.json"}
        for path in self.path.iterdir():
            if path.name not in kept and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in kept:
                path.unlink()
        (self.path / "settings.json").unlink(missing_ok=True)

    # --- Settings -----------------------------------------------------------------------------------------------------

    def settings(self):
        """What settle() has stored; an empty dictionary before."""
        stored = read_json(self.path / "settings.json")
        return stored if isinstance(stored.get("settings"), dict) and "made" in stored else {}

    def settle(self, settings, defaults, versions):
        """Stores the settings of a new search, or refuses those that differ from the stored ones.

        Args:
            settings: what decides the result of a search, a dictionary by names that people read.
            defaults: settings too, but those that the hardware decides: the stored ones count.
            versions: those of the packages that decide digits, a dictionary.

        Returns:
            The settings that count.
        """
        settings = json.loads(json.dumps(settings, default=str))
        with self.lock():
            stored = self.settings()
            if not stored:
                stored = {"made": time.time(), "settings": settings | defaults, "versions": versions}
                write_json(self.path / "settings.json", stored)
        known = stored["settings"]
        self._refuse_changes({name: known[name] for name in known if name in settings or name not in defaults}, settings)
        return known

    def check_versions(self, versions):
        """Refuses to train with other versions than those that the search was started with."""
        self._refuse_changes(self.settings()["versions"], versions)

    def _refuse_changes(self, stored, now):
        names = dict.fromkeys([*stored, *now])
        changes = [f"{name} was {stored.get(name)}, now {now.get(name)}" for name in names if stored.get(name) != now.get(name)]
        if changes:
            text = command_line.printable("; ".join(changes))
            command_line.stop(f"{self.path} holds a search with other settings ({text}): {WAYS_OUT}", status=2)
