"""Files that are whole at every instant, and the time worked on a search, which is stored in one."""

import contextlib
import hashlib
import json
import os
import time

from tuning import process


@contextlib.contextmanager
def whole_file(path, suffix="draft"):
    """Yields where to write a file that takes its place at `path` only once it is whole and on the disk."""
    draft = path.with_stem(f"{path.stem}_{suffix}")
    try:
        yield draft
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)  # on a full disk, half a file would take up room


def _checksum(content):
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_json(path, content):
    """Writes a JSON object, with its checksum, to a file that is at every instant the old one or the new one."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content | {"checksum": _checksum(content)}, indent=1))


def read_json(path):
    """Reads what write_json() wrote; an empty dictionary where the file is missing or one of its bytes was changed."""
    try:
        content = json.loads(path.read_bytes())
        return content if content.pop("checksum") == _checksum(content) else {}
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):  # whatever a damaged file may hold
        return {}


class Stopwatch:
    """Counts the seconds worked on a search, over all its runs but not between them."""

    def __init__(self, path, seconds_trained):
        """Continues from the time stored in `path`; where that is lost, from `seconds_trained`."""
        self.path = path
        self.before = read_json(path).get("seconds")
        if self.before is None:
            self.before = seconds_trained
            if seconds_trained or path.exists():
                print(f"{path} is missing or damaged: the time of the trials is used")
                write_json(path, {"seconds": seconds_trained})
        self.running = False  # until a trial starts: to look at a finished search is no work on it

    def save(self):
        """Stores the seconds and returns them."""
        if not self.running:
            return self.before
        seconds = self.before + time.monotonic() - process.STARTED
        write_json(self.path, {"seconds": seconds})
        return seconds
