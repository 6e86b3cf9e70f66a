"""Who runs what: hands out the trials that have not ended, to any number of equal processes that share one folder."""

import copy
import hashlib
import secrets
import shutil
import time

from tuning import environment, folder, proposals
from tuning.command_line import one_line, printable, stop
from tuning.environment import kt

ENDED = "COMPLETED", "FAILED"
BEST_TRIALS = 4  # so many keep their checkpoints
CHECKPOINT = "checkpoint.weights.h5"  # KerasTuner's name for a trial's weights in its best epoch


def checksum(path):
    """The SHA-256 of a file; None where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def restore(state):
    """A trial from what its file holds. Unlike from_state(), it changes neither its argument nor Python's random state."""
    trial = kt.engine.trial.Trial(None, state["trial_id"])
    trial.set_state(copy.deepcopy(state))
    return trial


class FolderOracle(kt.Oracle):
    """A KerasTuner oracle whose whole state is the trials' files.

    What a trial tries follows from the seed, its number and the results of the trials before it. So one that was lost,
    interrupted or damaged is simply missing: whoever comes next runs it, with the same hyperparameters. A trial that is
    run twice does no harm: each run trains in a folder of its own, and the first result that is stored counts.

    Args:
        search_folder: a Folder.
        propose: a function like those of proposals.py.
        waits: whether a proposal needs the results of earlier trials.
        options: those of kt.Oracle.

    Attributes:
        initial_space: what building the model has shown before the first trial.
        at_a_time: trial n is proposed from the results of trials 1 to n - at_a_time, whatever ended meanwhile.
        states: by the trials' numbers, from 1: what their files hold.
    """

    def __init__(self, search_folder, propose, waits, **options):
        super().__init__(**options)
        self.folder, self.propose, self.waits = search_folder, propose, waits
        self.at_a_time, self.initial_space, self.states = 1, None, {}
        self._held, self._told = {}, None  # by the ids of the trials that run in this process: facts of their files
        self.verbose = 0  # what is shown is not KerasTuner's

    # --- The trials' files --------------------------------------------------------------------------------------------

    def trial_folder(self, number):
        """Where a trial's file and the folders of its runs are; it is made if need be."""
        path = self.folder.path / f"trial_{number}"
        path.mkdir(exist_ok=True)
        return path

    def run_folder(self, trial_id):
        """Where a trial is trained, or was."""
        state = self._held.get(trial_id) or self._read(int(trial_id))
        return self.trial_folder(trial_id) / state["run"]

    def _read(self, number):
        state = folder.read_json(self.folder.path / f"trial_{number}" / "trial.json")
        try:
            restore(state)
            return state if {"proposed", "proposed_by", "process", "run", "started"} <= state.keys() else {}
        except (LookupError, TypeError, ValueError, AttributeError):  # whatever a damaged file makes of its reader
            return {}

    def read_states(self):
        """What the trials' files hold, by the trials' numbers from 1, as far as they can be read."""
        names = [path.name.removeprefix("trial_") for path in self.folder.path.glob("trial_*")]
        found = {number: self._read(number) for number in sorted(int(name) for name in names if name.isdecimal())}
        return {number: state for number, state in found.items() if state}

    def read(self):
        """Reads all trials' files; what other processes have written is known from then on."""
        if self.initial_space is None:
            self.initial_space = self.get_space()
        self.states = self.read_states()
        stored = {str(n): restore(state) for n, state in self.states.items()}
        self.trials = stored | {id: self.trials[id] for id in self._held}
        self.end_order = [id for id, trial in self.trials.items() if trial.status in ENDED]  # for kt.Oracle
        for id in self.end_order:
            self.update_space(self.trials[id].hyperparameters)

    def _write(self, trial, facts):
        self.states[int(trial.trial_id)] = state = trial.get_state() | facts
        folder.write_json(self.trial_folder(trial.trial_id) / "trial.json", state)

    def forget(self, number, reason):
        """Makes a trial one that is missing."""
        print(f"{printable(self.trial_folder(number))}: {reason}, so trial {number} is trained again")
        (self.trial_folder(number) / "trial.json").unlink()
        del self.states[number], self.trials[str(number)]

    def best_trials(self, count=BEST_TRIALS):
        """The best completed trials, at most so many, the best one first."""
        return [trial for trial in self.get_best_trials(count) if trial.status == "COMPLETED"]

    def forget_damaged(self):
        """Makes those of the best trials missing whose checkpoint is not the one that was stored; returns whether any."""
        damaged = []
        with self.folder.lock():
            self.read()
            for trial in self.best_trials():
                stored = self.states[int(trial.trial_id)].get("sha256")
                if stored != checksum(self.run_folder(trial.trial_id) / CHECKPOINT):
                    damaged.append(int(trial.trial_id))
            for number in damaged:
                self.forget(number, "its checkpoint is missing or damaged")
        return bool(damaged)

    # --- What a trial tries -------------------------------------------------------------------------------------------

    def has_ended(self, number):
        """Whether a trial has a result, as read() found it."""
        return self.states.get(number, {}).get("status") in ENDED

    def _missing_results(self, number):
        """The first of the trials that must have ended before trial `number` is proposed, and have not; None if none."""
        return next((n for n in range(1, number - self.at_a_time + 1) if not self.has_ended(n)), None)

    def _arguments(self, number):
        """From what a trial is proposed: the arguments of a function of proposals.py."""
        counted = [n for n in range(1, number - self.at_a_time + 1) if self.has_ended(n)]
        space, results = self.initial_space.copy(), []
        sign = -1 if self.objective.direction == "max" else 1
        for n in counted:
            trial = self.trials[str(n)]
            if self.tune_new_entries:  # a space may grow while it is searched
                space.merge(trial.hyperparameters, overwrite=False)
            if trial.status == "COMPLETED":
                results.append((self.states[n]["proposed"], sign * trial.score))
        tried = [self.states[n]["proposed"] for n in range(1, number) if n in self.states]
        return space, self.seed, number, tried, results

    def _counts(self, number):
        """Whether an ended trial is what is proposed now.

        Random search does not wait for results. Where the space has grown by one of them since, it was drawn too early.
        """
        if self.waits or self._missing_results(number) or self._is_proposed(number):
            return True
        self.forget(number, "an earlier trial has shown more hyperparameters")
        return False

    def _is_proposed(self, number):
        return self.propose(*self._arguments(number)) == self.states[number]["proposed"]

    # --- The life of a trial ------------------------------------------------------------------------------------------

    @kt.synchronized
    def create_trial(self, tuner_id):
        self.tuner_ids.add(tuner_id)  # KerasTuner's own chief waits for those who have not been told to stop
        with self.folder.lock() as locked:
            self.read()
            waits = self.waits or len(self.hyperparameters.space) > len(self.initial_space.space)
            waited = None  # for the end of this trial
            for number in range(1, self.max_trials + 1):
                if self.has_ended(number) and self._counts(number):
                    continue
                needed = self._missing_results(number) if waits else None
                if needed or self._runs(number):
                    waited = waited or needed or number
                    if needed:
                        break
                    continue
                arguments = self._arguments(number)
                values = self.propose(*arguments)
                if values is None:  # everything was tried
                    break
                return self._start(number, values, arguments, locked)
        if waited:
            self._tell_once(waited)
            return kt.engine.trial.Trial(self.get_space(), status="IDLE")
        self.tuner_ids.discard(tuner_id)
        return kt.engine.trial.Trial(self.get_space(), status="STOPPED")

    def _runs(self, number):
        state = self.states.get(number, {})
        if state.get("status") != "RUNNING" or state["process"] == folder.ME:
            return str(number) in self._held
        return self.folder.is_alive(state["process"])

    def _tell_once(self, number):
        process = self.states[number]["process"].rpartition(", ")[0]
        if self._told != (number, process):
            print(f"Waiting for trial {number} of {process}")
        self._told = number, process

    def _start(self, number, values, arguments, locked):
        self.folder.check_versions(environment.versions())
        path, run = self.trial_folder(number), f"run_{secrets.token_hex(4)}"
        if number not in self.states and (path / "trial.json").exists():
            print(f"{printable(path)}/trial.json is damaged, so trial {number} is trained again")
        if locked:  # what interrupted runs have left; without locks, one may be going on
            for left in path.glob("run_*"):
                shutil.rmtree(left)
        (path / run).mkdir()
        # The space as this trial knows it: what is missing in the values, KerasTuner would draw without a seed.
        trial = kt.engine.trial.Trial(arguments[0], str(number), "RUNNING")
        trial.hyperparameters.values = dict(values)
        proposer = "random" if values == proposals.propose_random(*arguments) else "surrogate"
        facts = {"proposed": values, "proposed_by": proposer, "process": folder.ME, "run": run, "started": time.time()}
        self._held[trial.trial_id], self.trials[trial.trial_id] = facts, trial
        self._write(trial, facts)
        return trial

    @kt.synchronized
    def end_trial(self, trial):
        number, run, too_many = int(trial.trial_id), self.run_folder(trial.trial_id), None
        facts = self._held.pop(trial.trial_id)
        with self.folder.lock():
            if self._read(number).get("status") in ENDED:  # on a file system without locks, others may run it as well
                shutil.rmtree(run)
                return
            try:
                super().end_trial(trial)  # scores it
            except RuntimeError as error:  # of max_consecutive_failed_trials
                too_many = error
            trial = self.trials[trial.trial_id]
            if trial.status == "FAILED":
                reason = run / "error.txt"  # a message is lost on the way from KerasTuner's workers
                trial.message = reason.read_text() if reason.exists() else f"the {self.objective.name} was {trial.score}"
            self._write(trial, facts | {"ended": time.time(), "sha256": checksum(run / CHECKPOINT)})
            self.read()
            kept = [each.trial_id for each in self.best_trials()]
            for id in self.end_order:
                if id not in kept:  # a checkpoint can take up 13 MB
                    (self.run_folder(id) / CHECKPOINT).unlink(missing_ok=True)
        if too_many:
            stop(one_line(too_many))

    def _save_trial(self, trial):
        """Private in KerasTuner: writes a trial's file where it stands; here _write() does, whole."""

    def save(self):
        """Writes nothing: the files of the trials are the whole state."""
