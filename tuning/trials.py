"""A trial as it is stored: one file for each, and a folder for each time that it is run."""

import contextlib
import hashlib
import json

from tuning.environment import kt
from tuning.folder import read_json

# proposed, proposed_by: the hyperparameters that it was started with, and "random" or "surrogate"; process, run: who
# runs it or has run it, and the folder in which; started, ended: seconds since the epoch; sha256: of its checkpoint.
FACTS = "proposed", "proposed_by", "process", "run", "started", "ended", "sha256"


class StoredTrial(kt.engine.trial.Trial):
    """A trial of KerasTuner's that is stored in the folder of a search, with FACTS; its id is its number, from 1."""

    def __init__(self, search, number, hyperparameters=None):
        super().__init__(hyperparameters, str(number))  # without an id, it would draw one from Python's random state
        self.number, self.path = number, search / f"trial_{number}"
        self.__dict__ |= dict.fromkeys(FACTS)

    has_ended = property(lambda self: self.status in ("COMPLETED", "FAILED"))
    file = property(lambda self: self.path / "trial.json")
    run_folder = property(lambda self: self.path / self.run)
    checkpoint = property(lambda self: self.run_folder / "checkpoint.weights.h5")  # KerasTuner's name; its best epoch's
    epochs_file = property(lambda self: self.run_folder / "epochs.jsonl")  # a line for each epoch

    def get_state(self):
        return super().get_state() | {name: getattr(self, name) for name in FACTS}

    def set_state(self, state):
        super().set_state(state)
        self.__dict__ |= {name: state[name] for name in FACTS}

    def forget(self, reason):
        """Makes it one that is missing, and says why."""
        print(f"{self.path}: {reason}, so trial {self.number} is trained again")
        self.file.unlink(missing_ok=True)  # without locks, others may do the same

    def checksum(self):
        """The SHA-256 of its checkpoint as it is now; None where there is none."""
        return hashlib.sha256(self.checkpoint.read_bytes()).hexdigest() if self.checkpoint.exists() else None

    def epochs(self):
        """What was measured in each epoch of it so far, and its `seconds`: a list of dictionaries."""
        lines = self.epochs_file.read_text(encoding="utf-8").splitlines(True) if self.epochs_file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may just be being written

    def record(self, objective):
        """Plain values for tables and pictures: a dictionary. Epochs count from 1; a failed trial's score is None."""
        rows, hp, completed = self.epochs(), self.hyperparameters, self.status == "COMPLETED"
        best_epoch = self.best_step + 1 if completed and rows and objective.name in rows[0] else None
        reason = (self.message or f"{objective.name} was {self.score}").strip().splitlines()[-1]  # of a traceback
        record = {"trial": self.number, "proposed_by": self.proposed_by, "status": self.status}
        record |= {"best_epoch": best_epoch, "epochs": len(rows), "score": self.score if completed else None}
        record |= {"started": self.started, "seconds": (self.ended or self.started) - self.started}
        record["message"] = reason.rpartition("FailedTrialError: ")[2] if self.status == "FAILED" else None
        record["hyperparameters"] = {name: value for name, value in hp.values.items() if hp.is_active(name)}
        return record | {"curves": {name: [row.get(name) for row in rows] for name in (rows[0] if rows else ())}}


def read_trial(search, number):
    """Reads a trial from the folder of a search; None where there is none, or its file is damaged."""
    trial = StoredTrial(search, number)
    with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError):  # whatever a damaged file makes of it
        trial.set_state(read_json(trial.file))
        return trial


def read_trials(folder):
    """The trials in a Folder that have ended or are running: a dictionary by their ids, in the order of numbers."""
    names = (path.name.removeprefix("trial_") for path in folder.path.glob("trial_*"))
    found = [read_trial(folder.path, number) for number in sorted(int(name) for name in names if name.isdecimal())]
    return {each.trial_id: each for each in found if each and (each.has_ended or folder.is_alive(each.process))}
