"""The files of a search's trials: one for each trial, and a folder for each time that it is run."""

import copy
import hashlib
import json

from tuning.command_line import printable
from tuning.environment import kt
from tuning.folder import read_json, write_json

ENDED = "COMPLETED", "FAILED"
CHECKPOINT = "checkpoint.weights.h5"  # KerasTuner's name for a trial's weights in its best epoch
FACTS = {"proposed", "proposed_by", "process", "run", "started"}  # in a trial's file, beside KerasTuner's own


def checksum(path):
    """The SHA-256 of a file; None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def restore(state):
    """A trial from what its file holds. Unlike from_state(), it changes neither its argument nor Python's random state."""
    trial = kt.engine.trial.Trial(None, state["trial_id"])
    trial.set_state(copy.deepcopy(state))
    return trial


def write_epoch(run, metrics, seconds):
    """Appends what was measured in an epoch, a dictionary of floats, to a file in a run's folder."""
    with open(run / "epochs.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(metrics | {"seconds": seconds}) + "\n")


def read_epochs(run):
    """What write_epoch() has written: a list of dictionaries, one for each epoch, with `seconds`."""
    rows = []
    try:
        for line in (run / "epochs.jsonl").read_text(encoding="utf-8").splitlines():
            rows.append(json.loads(line))
    except (FileNotFoundError, ValueError):  # no epoch has ended; one is just being written
        pass
    return rows


class TrialFiles:
    """Reads and writes the trials' files in the path of a search; trials are numbered from 1."""

    def __init__(self, path):
        self.path = path

    def folder(self, number):
        """Where a trial's file and the folders of its runs are."""
        return self.path / f"trial_{number}"

    def run(self, number):
        """The folder in which the run that counts is, or was."""
        return self.folder(number) / self.read(number)["run"]

    def read(self, number):
        """What a trial's file holds, a dictionary; an empty one where there is none or it is damaged."""
        state = read_json(self.folder(number) / "trial.json")
        try:
            restore(state)
        except (LookupError, TypeError, ValueError, AttributeError):  # whatever a damaged file makes of its reader
            return {}
        return state if FACTS <= state.keys() else {}

    def read_all(self):
        """What the files of all trials hold that can be read, by the trials' numbers."""
        names = [path.name.removeprefix("trial_") for path in self.path.glob("trial_*")]
        found = {number: self.read(number) for number in sorted(int(name) for name in names if name.isdecimal())}
        return {number: state for number, state in found.items() if state}

    def write(self, number, state):
        """Stores a trial."""
        write_json(self.folder(number) / "trial.json", state)

    def forget(self, number, reason):
        """Makes a trial one that is missing, and says so."""
        print(f"{printable(self.folder(number))}: {reason}, so trial {number} is trained again")
        (self.folder(number) / "trial.json").unlink()
