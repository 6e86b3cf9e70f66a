"""Hands out the trials that have not ended, to any number of equal processes that share one folder."""

import secrets
import shutil
import time

from tuning.environment import kt
from tuning.folder import write_json
from tuning.proposals import propose
from tuning.trials import StoredTrial, read_trial, read_trials

BEST_TRIALS = 4  # whose models are checked and reported


class FolderOracle(kt.Oracle):
    """A KerasTuner oracle whose whole state is the trials' files; `initial_points` are as for propose().

    What a trial tries follows from the seed, its number and the results of the trials before it. So one that was lost,
    interrupted or damaged is simply missing: whoever comes next runs it, with the same hyperparameters. A trial that is
    run twice does no harm: each run trains in a folder of its own, and the first result that is stored counts.
    """

    def __init__(self, initial_points, **options):
        super().__init__(**options)
        self.initial_points, self.verbose = initial_points, 0  # what is shown is not KerasTuner's
        self.waits = initial_points is not None  # whether a trial needs the results of earlier ones
        self.awaited = None  # the trial of another process whose end this one waits for
        self._running = {}  # the trials that this process runs, by their ids

    def join(self, folder, at_a_time):
        """Takes part in the search of a Folder, in which trial n follows from the results of 1 to n - at_a_time."""
        self.folder, self.at_a_time, self._initial_space = folder, at_a_time, self.get_space()
        self.read()

    def read(self):
        """Reads all trials' files; what other processes have written is known from then on."""
        self.trials = read_trials(self.folder) | self._running
        self.ended = {trial.number: trial for trial in self.trials.values() if trial.has_ended}
        for trial in self.ended.values():
            self.update_space(trial.hyperparameters)

    def get_trial(self, trial_id):
        return self._running.get(trial_id) or read_trial(self.folder.path, int(trial_id))

    def best_trials(self):
        """The best trials that have a checkpoint, at most BEST_TRIALS, the best one first."""
        return [trial for trial in self.get_best_trials(BEST_TRIALS) if trial.sha256]

    def forget_damaged(self):
        """Makes those best trials missing whose checkpoint is not what it was when they ended; returns whether any."""
        with self.folder.lock():
            self.read()
            damaged = [trial for trial in self.best_trials() if trial.checksum() != trial.sha256]
            for trial in damaged:
                trial.forget("its checkpoint is missing or damaged")
                del self.ended[trial.number]
        return bool(damaged)

    def _propose(self, number):
        space, results = self._initial_space.copy(), []
        sign = -1 if self.objective.direction == "max" else 1
        for trial in self.ended.values():
            if trial.number <= number - self.at_a_time:
                if self.tune_new_entries:  # a space may grow while it is searched
                    space.merge(trial.hyperparameters, overwrite=False)
                if trial.status == "COMPLETED":
                    results.append((trial.proposed, sign * trial.score))
        tried = [trial.proposed for trial in self.trials.values() if trial.number < number]
        return space, *propose(space, self.seed, number, tried, results, self.initial_points)

    def create_trial(self, tuner_id):
        self.tuner_ids.add(tuner_id)  # KerasTuner's own chief waits for those who have not been told to stop
        told, self.awaited = self.awaited, None
        with self.folder.lock() as locked:
            self.read()
            grown = len(self.hyperparameters.space) > len(self._initial_space.space)  # random search waits only then
            for number in range(1, self.max_trials + 1):
                if (self.waits or grown) and not self.ended.keys() >= {*range(1, number - self.at_a_time + 1)}:
                    break
                trial, ended = self.trials.get(str(number)), number in self.ended
                if ended and (self.waits or not grown):
                    continue
                if trial and not ended:
                    self.awaited = self.awaited or trial
                    continue
                space, values, proposed_by = self._propose(number)
                if values is None:  # everything was tried
                    break
                if ended:
                    if trial.proposed == values:
                        continue
                    trial.forget("earlier trials have shown more hyperparameters")
                self.awaited = None
                return self._start(number, space, values, proposed_by, locked)
        if not self.awaited:
            self.tuner_ids.discard(tuner_id)
        elif not told or told.run != self.awaited.run:
            print(f"Waiting for trial {self.awaited.number} of {self.awaited.process.rpartition(', ')[0]}")
        return kt.engine.trial.Trial(self.get_space(), "", "IDLE" if self.awaited else "STOPPED")

    def _start(self, number, space, values, proposed_by, locked):
        trial = StoredTrial(self.folder.path, number, space)  # of a larger one, KerasTuner would draw what is missing
        if trial.file.exists() and not self.get_trial(trial.trial_id):
            trial.forget("its file is damaged")
        for left in trial.path.glob("run_*") if locked else ():  # interrupted; without locks, one may be going on
            shutil.rmtree(left)
        trial.proposed, trial.proposed_by, trial.hyperparameters.values = values, proposed_by, dict(values)
        trial.process, trial.run, trial.started = self.folder.me, f"run_{secrets.token_hex(4)}", time.time()
        trial.run_folder.mkdir(parents=True)
        write_json(trial.file, trial.get_state())
        self.trials[trial.trial_id] = self._running[trial.trial_id] = trial
        return trial

    def end_trial(self, trial):
        mine = self._running.pop(trial.trial_id)
        with self.folder.lock():
            stored = self.get_trial(trial.trial_id)
            if stored and stored.has_ended:  # without locks, others may have run it as well
                shutil.rmtree(mine.run_folder)
                return
            super().end_trial(trial)  # scores it
            mine.ended, mine.sha256 = time.time(), mine.checksum() if mine.status == "COMPLETED" else None
            write_json(mine.file, mine.get_state())

    save = _save_trial = lambda *_: None  # private: end_trial() writes a trial's file, whole; there is no other state
