"""A search's folder: whose it is, its settings, and what --overwrite deletes."""

import contextlib
import errno
import os
import re
import shutil

import filelock

from tuning import environment, process, workers
from tuning.files import read_json, write_json

FORMAT = 2  # of the stored files; a search of another format can't be resumed
# Options that may change between two runs of one search. All others are its settings: they decide what comes out.
RUN_OPTIONS = {"max_trials", "workers", "precision", "results_dir", "overwrite", "tensorboard"}
# What a search may leave in its folder, so what --overwrite deletes; the last line is of other versions.
PICTURES = ("progress", "hyperparameters", "learning_curves", "confusion_matrix", "mistakes")
TRIAL_FILES = ("trial.json", "failure.txt", "build_config.json", "checkpoint.weights.h5")
FILES = (
    "settings.json", "elapsed.json", "summary.json", "trials.csv", "best_model.keras", "best_four.keras",
    *(f"{name}.png" for name in PICTURES),
    "best_model.json", "oracle.json", "tuner0.json",
)


class Project:
    """The folder of one search, which is this process' own while the context is open; a worker's is its chief's.

    Attributes:
        folder: its path.
        options: the parsed options.
        settings: what decides the result of a search, a dictionary; after check_settings().

    Raises:
        BadInput: on entering the context, where the folder can't be written or is in use.
    """

    def __init__(self, options, name):
        self.options = options
        self.folder = options.results_dir / name
        self.lock = filelock.FileLock(self.folder / "search.lock", blocking=False, fallback_to_soft=False)

    def __enter__(self):
        workers.check_environment()
        if workers.is_worker():
            workers.join_chief()
            return self
        owner = self.folder / "search.pid"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._acquire()
            owner.write_text(str(os.getpid()))
            if self.options.overwrite or (self.folder / "overwriting").exists():
                self._clear()
        except filelock.Timeout:
            raise process.BadInput(
                f"process {owner.read_text() if owner.exists() else '(starting)'} is at work on {self.folder}: "
                "let it end, or use another --results-dir"
            )
        except OSError as error:
            if error.errno in process.NO_SPACE:
                raise
            raise process.BadInput(f"--results-dir {self.folder.parent}: can't be written ({process.one_line(error)})")
        return self

    def __exit__(self, *exception):
        self.lock.release()

    def _acquire(self):
        try:
            self.lock.acquire()
        except (NotImplementedError, OSError) as error:
            if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            print(f"{self.folder} lies on a file system without locks: never run two searches in it at a time")

    def _clear(self):
        # In place: the folder may be a link to another file system. An interrupted deletion goes on at the next start.
        folders = self.trial_folders()
        for folder in folders:
            if not os.access(folder, os.W_OK):  # before anything is deleted
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        mark = self.folder / "overwriting"
        mark.touch()
        for folder in folders:
            for name in TRIAL_FILES:
                (folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds what a user put there, or is a link
                folder.rmdir()
        shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        for name in FILES:
            (self.folder / name).unlink(missing_ok=True)
        mark.unlink()

    def trial_folders(self):
        """The folders of trials, in their order: their names are trial_ and a number, nothing else."""
        found = [path for path in self.folder.glob("trial_*") if re.fullmatch(r"trial_\d+", path.name)]
        return sorted(found, key=lambda path: int(path.name.removeprefix("trial_")))

    def trial_folder(self, trial_id):
        """The folder of a trial, which is made if need be."""
        folder = self.folder / f"trial_{trial_id}"
        folder.mkdir(exist_ok=True)
        return folder

    def checkpoint(self, trial_id):
        """Where KerasTuner stores a trial's weights in its best epoch."""
        return self.folder / f"trial_{trial_id}" / "checkpoint.weights.h5"

    def check_settings(self, space):
        """Refuses to resume a search that was started with other settings; stores those of a new one.

        `--precision auto` takes over the precision that the search was started with.

        Args:
            space: what the hypermodel adds to the settings, a dictionary.

        Raises:
            BadInput: the folder holds something else than this search.
        """
        path, tuner = self.folder / "settings.json", self.folder / "tuner0.json"  # of KerasTuner itself
        found = read_json(path)
        files = [folder / "trial.json" for folder in self.trial_folders()]
        trials = [read_json(file) for file in files if file.exists()]
        stored = found or next((trial["settings"] for trial in trials if "settings" in trial), {})  # in case it is lost
        precision = self.options.precision
        if precision == "auto":
            precision = stored.get("precision") or environment.fastest_precision()
        options = {name: value for name, value in vars(self.options).items() if name not in RUN_OPTIONS}
        self.settings = {"format": FORMAT, **options, "precision": precision, **space}
        ways_out = "--overwrite starts a new one, another --results-dir keeps both"
        if workers.is_worker():
            ways_out = "a worker needs the options of its chief"
            if not stored:
                raise process.BadInput(f"{path} can't be read: a worker needs the results folder of its chief")
        is_foreign = stored["format"] != FORMAT if "format" in stored else stored or trials or tuner.exists()
        if is_foreign:
            raise process.BadInput(f"{self.folder} holds a search that this version can't resume: {ways_out}")
        changes = [
            f"{name} was {stored.get(name)}, now {self.settings.get(name)}"
            for name in stored | self.settings
            if stored and stored.get(name) != self.settings.get(name)
        ]
        if changes:
            changes = "; ".join(changes)
            raise process.BadInput(f"{self.folder} holds a search with other settings ({changes}): {ways_out}")
        if workers.is_worker():
            workers.start_heartbeat(self.folder)
            return
        if not stored:
            self._clear()  # what is left of a search whose trials were deleted
        elif not found:
            print(f"{path} is missing or damaged: written again")
        write_json(path, self.settings)
