"""A search's folder: its files, whole at every instant, its settings, its time, and whose it is."""

import contextlib
import hashlib
import json
import os
import shutil
import time

import common  # first: it sets up TensorFlow before anything else imports it

import filelock
import keras

import workers


@contextlib.contextmanager
def whole_file(path):
    """Yields where to write a file that takes its place at `path` only once it is whole and on the disk."""
    draft = path.with_stem(f"{path.stem}_draft")
    try:
        yield draft
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)  # where the disk is full, half a file takes the room away


def checksum(content):
    """The SHA-256 of a JSON object's text."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_json(path, content):
    """Writes a JSON object, with its checksum, to a file that is at every instant the old one or the new one."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content | {"checksum": checksum(content)}, indent=1))


def read_json(path):
    """Reads what write_json() wrote; an empty dictionary where the file is missing or one of its bytes was changed."""
    try:
        content = json.loads(path.read_bytes())
        return content if content.pop("checksum") == checksum(content) else {}
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):  # whatever a damaged file may hold
        return {}


def check_settings(settings):
    """Refuses to go on with a search that was begun with other settings; stores those of a new one.

    `--precision auto` takes up the precision that the search was begun with.
    """
    path = settings.project / "settings.json"
    trials = map(read_json, settings.project.glob("trial_[0-9]*/trial.json"))  # each has the settings as well
    found = read_json(path)
    stored = found or next(filter(None, (trial.get("settings") for trial in trials)), {})
    if settings.precision == "auto":
        settings.precision = stored.get("precision") or common.fastest_precision()
    names = ("epochs", "batch_size", "patience", "seed", "precision", "train_images", "initial_points")
    asked = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    asked |= {
        "trial_epochs": common.TRIAL_EPOCHS, "final_epochs": common.FINAL_EPOCHS, "networks": common.FINAL_NETWORKS
    }
    space = common.search_space()
    asked |= {f"search space of {hp.name}": str(hp) for hp in space.space}
    keras.backend.clear_session()  # or the names of the layers would depend on what was built before
    network = common.build_network(space).to_json()
    asked["network"] = hashlib.sha256(network.encode()).hexdigest()[:8]
    differences = [name for name in stored | asked if stored.get(name) != asked.get(name)]
    if stored and differences:
        changes = "; ".join(f"{name} was {stored.get(name)}, now {asked.get(name)}" for name in differences)
        raise common.BadInput(
            f"{settings.project} holds a search with other settings ({changes}): " + (
                "a worker needs the options of its chief"
                if workers.is_worker()
                else "--overwrite begins anew, another --results-dir keeps both"
            )
        )
    if workers.is_worker() and not stored:
        raise common.BadInput(f"{path} can't be read: a worker needs the results folder of its chief")
    if not workers.is_worker():
        if not found and any(settings.project.iterdir()):
            print(f"{path} is missing or damaged: written anew")
        write_json(path, asked)


def open_project(settings, name):
    """Settles what this process works on: sets the project (its folder) and the precision in `settings`.

    The folder is this process' own until it ends. A worker leaves that, and the files in it, to its chief.

    Raises:
        BadInput: the folder can't be written, is in use, or holds a search with other settings.
    """
    settings.project = settings.results_dir / name
    if missing := workers.missing_variables():
        raise common.BadInput(f"a parallel search needs {', '.join(missing)} in the environment as well")
    if workers.is_worker():
        workers.join_chief()
        check_settings(settings)
    else:
        holder = settings.results_dir / f"{name}.pid"
        settings.lock = filelock.FileLock(settings.results_dir / f"{name}.lock", blocking=False)
        try:
            settings.results_dir.mkdir(parents=True, exist_ok=True)
            settings.lock.acquire()
            holder.write_text(str(os.getpid()))
            discarded = settings.results_dir / f"{name}.discarded"
            if discarded.exists():  # an --overwrite was interrupted
                shutil.rmtree(discarded)
            if settings.overwrite and settings.project.exists():
                settings.project.rename(discarded)  # at once: half a search must not be taken for a whole one
                shutil.rmtree(discarded)
            settings.project.mkdir(exist_ok=True)
            check_settings(settings)
        except filelock.Timeout:
            raise common.BadInput(
                f"process {holder.read_text() if holder.exists() else '(starting)'} is at work on {settings.project}: "
                "let it end, or take another --results-dir"
            )
        except OSError as error:
            if error.errno in common.NO_ROOM:
                raise
            raise common.BadInput(f"--results-dir {settings.results_dir}: can't be written ({error.strerror})")
        print(f"Precision: {settings.precision}")


class Stopwatch:
    """Counts the seconds worked on a search, over all its runs but not between them."""

    def __init__(self, path, seconds_trained):
        """Goes on from the time stored in `path`; where that is lost, from what the trials and the best model took."""
        self.path = path
        self.before = read_json(path).get("seconds")
        if self.before is None:
            self.before = seconds_trained + read_json(path.with_name("best_model.json")).get("seconds", 0.0)
            if self.before or path.exists():
                print(f"{path} is missing or damaged: the time is that of the trainings")
                write_json(path, {"seconds": self.before})
        self.running = False  # until a trial begins: to look at a finished search is no work on it

    def seconds(self):
        return self.before + (time.monotonic() - common.STARTED if self.running else 0.0)

    def save(self):
        """Stores the seconds and returns them."""
        seconds = self.seconds()
        if self.running:
            write_json(self.path, {"seconds": seconds})
        return seconds
