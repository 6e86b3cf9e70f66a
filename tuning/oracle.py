"""Who runs what: hands out the trials that have not ended, to any number of equal processes that share one folder."""

import secrets
import shutil
import time

from tuning import environment, proposals
from tuning.command_line import one_line, stop
from tuning.environment import kt
from tuning.folder import ME
from tuning.trials import CHECKPOINT, StoredTrial, checksum, forget, read_trial, read_trials

BEST_TRIALS = 4  # so many keep their checkpoints


class FolderOracle(kt.Oracle):
    """A KerasTuner oracle whose whole state is the trials' files.

    What a trial tries follows from the seed, its number and the results of the trials before it. So one that was lost,
    interrupted or damaged is simply missing: whoever comes next runs it, with the same hyperparameters. A trial that is
    run twice does no harm: each run trains in a folder of its own, and the first result that is stored counts.

    Args:
        folder: the Folder that is shared.
        propose: a function of proposals.py.
        waits: whether a proposal needs the results of earlier trials.
        options: those of kt.Oracle.

    Attributes:
        trials: by their ids, after read().
        at_a_time: trial n is proposed from the results of trials 1 to n - at_a_time, whatever ended meanwhile.
    """

    def __init__(self, folder, propose, waits, **options):
        super().__init__(**options)
        self.folder, self.path, self.propose, self.waits = folder, folder.path, propose, waits
        self.at_a_time, self._initial_space, self._told = 1, None, None
        self._running = {}  # the trials that this process runs, by their ids
        self.verbose = 0  # what is shown is not KerasTuner's

    def read(self):
        """Reads all trials' files; what other processes have written is known from then on."""
        self._initial_space = self._initial_space or self.get_space()
        self.trials = read_trials(self.path) | self._running
        # KerasTuner counts the failures in it.
        self.end_order = [id for id, trial in self.trials.items() if trial.has_ended]
        for id in self.end_order:
            self.update_space(self.trials[id].hyperparameters)

    def has_ended(self, number):
        """Whether a trial has a result, as read() found it."""
        return str(number) in self.trials and self.trials[str(number)].has_ended

    def run_folder(self, id):
        """Where a trial is trained by this process, or was by whoever ended it: a path."""
        return (self._running.get(id) or read_trial(self.path, id)).run_folder(self.path)

    def best_trials(self):
        """The best completed trials, at most BEST_TRIALS, the best one first."""
        return [trial for trial in self.get_best_trials(BEST_TRIALS) if trial.status == "COMPLETED"]

    def forget_damaged(self):
        """Makes those best trials missing whose checkpoint is not what it was when they ended; returns whether any."""
        with self.folder.lock():
            self.read()
            best = self.best_trials()
            damaged = [each for each in best if checksum(each.run_folder(self.path) / CHECKPOINT) != each.sha256]
            for trial in damaged:
                forget(self.path, trial.number, "its checkpoint is missing or damaged")
        return bool(damaged)

    # --- What a trial tries -------------------------------------------------------------------------------------------

    def _has_what_it_needs(self, number):
        """Whether the trials have ended from whose results this one is proposed."""
        return all(map(self.has_ended, range(1, number - self.at_a_time + 1)))

    def _arguments(self, number):
        """From what a trial is proposed: the arguments of a function of proposals.py."""
        space, results = self._initial_space.copy(), []
        sign = -1 if self.objective.direction == "max" else 1
        last = number - self.at_a_time
        for trial in [each for each in self.trials.values() if each.number <= last and each.has_ended]:
            if self.tune_new_entries:  # a space may grow while it is searched
                space.merge(trial.hyperparameters, overwrite=False)
            if trial.status == "COMPLETED":
                results.append((trial.proposed, sign * trial.score))
        tried = [trial.proposed for trial in self.trials.values() if trial.number < number]
        return space, self.seed, number, tried, results

    def _is_settled(self, number):
        """Whether an ended trial counts: not one that was drawn before others had shown more hyperparameters."""
        if self.waits or not self._has_what_it_needs(number):
            return True
        if self.propose(*self._arguments(number)) == self.trials[str(number)].proposed:
            return True
        forget(self.path, number, "earlier trials have shown more hyperparameters")
        del self.trials[str(number)]
        return False

    # --- The life of a trial ------------------------------------------------------------------------------------------

    @kt.synchronized
    def create_trial(self, tuner_id):
        self.tuner_ids.add(tuner_id)  # KerasTuner's own chief waits for those who have not been told to stop
        awaited = None
        with self.folder.lock() as locked:
            self.read()
            # Random search does not wait for results, unless the space grows while it is searched.
            waits = self.waits or len(self.hyperparameters.space) > len(self._initial_space.space)
            for number in range(1, self.max_trials + 1):
                if self.has_ended(number) and self._is_settled(number):
                    continue
                if waits and not self._has_what_it_needs(number):
                    break
                if self._is_running(number):
                    awaited = awaited or self.trials[str(number)]
                    continue
                arguments = self._arguments(number)
                values = self.propose(*arguments)
                if values is None:  # everything was tried
                    break
                return self._start(number, values, arguments, locked)
        if not awaited:
            self.tuner_ids.discard(tuner_id)
            return kt.engine.trial.Trial(self.get_space(), "", "STOPPED")
        if self._told != awaited.run:
            print(f"Waiting for trial {awaited.number} of {awaited.process.rpartition(', ')[0]}")
        self._told = awaited.run
        return kt.engine.trial.Trial(self.get_space(), "", "IDLE")

    def _is_running(self, number):
        trial = self.trials.get(str(number))
        return (
            str(number) in self._running or bool(trial) and trial.process != ME and self.folder.is_alive(trial.process)
        )

    def _start(self, number, values, arguments, locked):
        self.folder.check_versions(environment.versions())
        folder = self.path / f"trial_{number}"
        if str(number) not in self.trials and (folder / "trial.json").exists():
            forget(self.path, number, "its file is damaged")
        for left in folder.glob("run_*") if locked else ():  # of interrupted runs; without locks, one may be going on
            shutil.rmtree(left)
        # The space as this trial knows it: what is missing in the values, KerasTuner would draw without a seed.
        trial = StoredTrial(arguments[0], str(number), "RUNNING")
        trial.hyperparameters.values, trial.proposed = dict(values), values
        trial.proposed_by = "random" if values == proposals.propose_random(*arguments) else "surrogate"
        trial.process, trial.run, trial.started = ME, f"run_{secrets.token_hex(4)}", time.time()
        trial.run_folder(self.path).mkdir(parents=True)
        trial.write(self.path)
        self.trials[trial.trial_id] = self._running[trial.trial_id] = trial
        return trial

    @kt.synchronized
    def end_trial(self, trial):
        mine, too_many = self._running.pop(trial.trial_id), None
        run = mine.run_folder(self.path)
        with self.folder.lock():
            self.trials[trial.trial_id] = mine
            stored = read_trial(self.path, trial.trial_id)
            if stored and stored.has_ended:  # without locks, others may have run it as well
                shutil.rmtree(run)
                return
            try:
                super().end_trial(trial)  # scores it
            except RuntimeError as error:  # of max_consecutive_failed_trials
                too_many = error
            if mine.status == "FAILED":  # its message is lost on the way from KerasTuner's own workers
                reason = run / "error.txt"
                mine.message = reason.read_text() if reason.exists() else f"{self.objective.name} was {mine.score}"
            mine.ended, mine.sha256 = time.time(), checksum(run / CHECKPOINT)
            mine.write(self.path)
            self.read()
            for id in set(self.end_order) - {each.trial_id for each in self.best_trials()}:
                (self.trials[id].run_folder(self.path) / CHECKPOINT).unlink(missing_ok=True)  # it can take up 13 MB
        if too_many:
            stop(one_line(too_many))

    def _save_trial(self, trial):
        """Private in KerasTuner: writes a trial's file where it stands; here end_trial() does, whole."""

    def save(self):
        """Writes nothing: the files of the trials are the whole state."""
