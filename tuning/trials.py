"""A trial as it is stored: one file for each, and a folder for each time that it is run."""

import copy
import hashlib
import json

from tuning.command_line import printable
from tuning.environment import kt
from tuning.folder import read_json, write_json

EPOCHS = "epochs.jsonl"  # in the folder of a run: a line for each epoch
CHECKPOINT = "checkpoint.weights.h5"  # KerasTuner's name for a trial's weights in its best epoch


def checksum(path):
    """The SHA-256 of a file; None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


class StoredTrial(kt.engine.trial.Trial):
    """A trial of KerasTuner's that knows more of itself; trials are numbered from 1, their ids are their numbers.

    Attributes:
        proposed: the hyperparameters that it was started with, a dictionary.
        proposed_by: "random" or "surrogate".
        process, run: who runs it or has run it, and the name of the folder in which.
        started, ended: seconds since the epoch.
        sha256: of its checkpoint.
    """

    FACTS = ("proposed", "proposed_by", "process", "run", "started", "ended", "sha256")

    def get_state(self):
        return super().get_state() | {name: getattr(self, name, None) for name in self.FACTS}

    def set_state(self, state):
        super().set_state(copy.deepcopy(state))  # it changes its argument
        for name in self.FACTS:
            setattr(self, name, state[name])

    @property
    def number(self):
        return int(self.trial_id)

    @property
    def has_ended(self):
        return self.status in ("COMPLETED", "FAILED")

    def write(self, path):
        """Stores it in the folder of a search."""
        write_json(path / f"trial_{self.trial_id}" / "trial.json", self.get_state())

    def run_folder(self, path):
        """Where it is trained, or was, in the folder of a search."""
        return path / f"trial_{self.trial_id}" / self.run

    def epochs(self, path):
        """What was measured in each epoch of it so far, and its `seconds`: a list of dictionaries."""
        rows = []
        try:
            for line in (self.run_folder(path) / EPOCHS).read_text(encoding="utf-8").splitlines():
                rows.append(json.loads(line))
        except (FileNotFoundError, ValueError):  # no epoch has ended; one is just being written
            pass
        return rows

    def record(self, path, objective):
        """Plain values for tables and pictures: a dictionary.

        `best_epoch` counts from 1, `seconds` are from start to end, `curves` have a value for each epoch; where a trial
        has failed, best epoch and score are None.
        """
        rows, completed = self.epochs(path), self.status == "COMPLETED"
        active = {
            name: value for name, value in self.hyperparameters.values.items() if self.hyperparameters.is_active(name)
        }
        return {
            "trial": self.number,
            "proposed_by": self.proposed_by,
            "status": self.status,
            # With 12 digits: a float's steps add up to 0.30000000000000004.
            "hyperparameters": {n: float(f"{v:.12g}") if isinstance(v, float) else v for n, v in active.items()},
            "best_epoch": self.best_step + 1 if completed and rows and objective.name in rows[0] else None,
            "epochs": len(rows),
            "score": self.score if completed else None,
            "started": self.started,
            "seconds": (self.ended or self.started) - self.started,
            "message": printable(self.message.splitlines()[0]) if self.message else None,
            "curves": {name: [row.get(name) for row in rows] for name in dict.fromkeys(n for row in rows for n in row)},
        }


def read_trial(path, number):
    """Reads a trial from the folder of a search; None where there is none, or its file is damaged."""
    trial = StoredTrial(None, str(number))  # with an id: to make one, KerasTuner would draw from Python's random state
    try:
        trial.set_state(read_json(path / f"trial_{number}" / "trial.json"))
    except (LookupError, TypeError, ValueError, AttributeError):  # whatever a damaged file makes of its reader
        return None
    return trial


def read_trials(path):
    """All trials in the folder of a search that can be read: a dictionary by their ids, in the order of numbers."""
    names = (each.name.removeprefix("trial_") for each in path.glob("trial_*"))
    found = [read_trial(path, number) for number in sorted(int(name) for name in names if name.isdecimal())]
    return {trial.trial_id: trial for trial in found if trial}


def forget(path, number, reason):
    """Makes a trial one that is missing, and says why."""
    print(f"{printable(path)}/trial_{number}: {reason}, so trial {number} is trained again")
    (path / f"trial_{number}" / "trial.json").unlink()
