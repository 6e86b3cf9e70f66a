"""Who runs what: hands out the trials that have not ended, to any number of equal processes that share one folder."""

import secrets
import shutil
import time

from tuning import environment, proposals
from tuning.command_line import one_line, stop
from tuning.environment import kt
from tuning.folder import ME
from tuning.trials import CHECKPOINT, ENDED, TrialFiles, checksum, restore

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
        files: the TrialFiles.
        at_a_time: trial n is proposed from the results of trials 1 to n - at_a_time, whatever ended meanwhile.
        states: what the trials' files hold, by the trials' numbers, after read().
    """

    def __init__(self, folder, propose, waits, **options):
        super().__init__(**options)
        self.folder, self.files, self.propose, self.waits = folder, TrialFiles(folder.path), propose, waits
        self.at_a_time, self.states, self._initial_space, self._told = 1, {}, None, None
        self._running = {}  # trials that this process runs: what their files hold

    def read(self):
        """Reads all trials' files; what other processes have written is known from then on."""
        self._initial_space = self._initial_space or self.get_space()
        self.states = self.files.read_all() | self._running
        restored = {str(n): restore(state) for n, state in self.states.items()}
        self.trials = restored | {str(n): self.trials[str(n)] for n in self._running}
        self.end_order = [id for id in self.trials if self.has_ended(int(id))]
        for id in self.end_order:
            self.update_space(self.trials[id].hyperparameters)

    def has_ended(self, number):
        """Whether a trial has a result, as read() found it."""
        return self.states.get(number, {}).get("status") in ENDED

    def run_folder(self, number):
        """Where a trial is trained by this process, or was by whoever ended it: a path."""
        state = self._running.get(number)
        return self.files.folder(number) / state["run"] if state else self.files.run(number)

    def best_trials(self):
        """The best completed trials, at most BEST_TRIALS, the best one first."""
        return [trial for trial in self.get_best_trials(BEST_TRIALS) if trial.status == "COMPLETED"]

    def forget_damaged(self):
        """Makes those best trials missing whose checkpoint is not what it was when they ended; returns whether any."""
        with self.folder.lock():
            self.read()
            numbers = [int(trial.trial_id) for trial in self.best_trials()]
            stored = {number: self.states[number].get("sha256") for number in numbers}
            damaged = [n for n in numbers if checksum(self.run_folder(n) / CHECKPOINT) != stored[n]]
            for number in damaged:
                self.files.forget(number, "its checkpoint is missing or damaged")
        return bool(damaged)

    # --- What a trial tries -------------------------------------------------------------------------------------------

    def _needed(self, number):
        """The trials from whose results this one is proposed."""
        return range(1, number - self.at_a_time + 1)

    def _arguments(self, number):
        """From what a trial is proposed: the arguments of a function of proposals.py."""
        space, results = self._initial_space.copy(), []
        sign = -1 if self.objective.direction == "max" else 1
        for n in filter(self.has_ended, self._needed(number)):
            if self.tune_new_entries:  # a space may grow while it is searched
                space.merge(self.trials[str(n)].hyperparameters, overwrite=False)
            if self.trials[str(n)].status == "COMPLETED":
                results.append((self.states[n]["proposed"], sign * self.trials[str(n)].score))
        tried = [self.states[n]["proposed"] for n in range(1, number) if n in self.states]
        return space, self.seed, number, tried, results

    def _is_settled(self, number):
        """Whether an ended trial counts: not one that was drawn before others had shown more hyperparameters."""
        if self.waits or not all(map(self.has_ended, self._needed(number))):
            return True
        if self.propose(*self._arguments(number)) == self.states[number]["proposed"]:
            return True
        self.files.forget(number, "earlier trials have shown more hyperparameters")
        del self.states[number]
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
                if waits and not all(map(self.has_ended, self._needed(number))):
                    break
                if self._is_running(number):
                    awaited = awaited or number
                    continue
                arguments = self._arguments(number)
                values = self.propose(*arguments)
                if values is None:  # everything was tried
                    break
                return self._start(number, values, arguments, locked)
        if awaited:
            process = self.states[awaited]["process"].rpartition(", ")[0]
            if self._told != (awaited, process):
                print(f"Waiting for trial {awaited} of {process}")
            self._told = awaited, process
        else:
            self.tuner_ids.discard(tuner_id)
        return kt.engine.trial.Trial(self.get_space(), status="IDLE" if awaited else "STOPPED")

    def _is_running(self, number):
        process = self.states.get(number, {}).get("process")
        return number in self._running if process in (None, ME) else self.folder.is_alive(process)

    def _start(self, number, values, arguments, locked):
        self.folder.check_versions(environment.versions())
        path, run = self.files.folder(number), f"run_{secrets.token_hex(4)}"
        if number not in self.states and (path / "trial.json").exists():
            self.files.forget(number, "its file is damaged")
        for left in path.glob("run_*") if locked else ():  # of interrupted runs; without locks, one may be going on
            shutil.rmtree(left)
        (path / run).mkdir(parents=True)
        # The space as this trial knows it: what is missing in the values, KerasTuner would draw without a seed.
        trial = kt.engine.trial.Trial(arguments[0], str(number), "RUNNING")
        trial.hyperparameters.values = dict(values)
        proposer = "random" if values == proposals.propose_random(*arguments) else "surrogate"
        facts = {"proposed": values, "proposed_by": proposer, "process": ME, "run": run, "started": time.time()}
        self._running[number], self.trials[trial.trial_id] = trial.get_state() | facts, trial
        self.files.write(number, self._running[number])
        return trial

    @kt.synchronized
    def end_trial(self, trial):
        number, run, too_many = int(trial.trial_id), self.run_folder(int(trial.trial_id)), None
        state = self._running.pop(number)
        with self.folder.lock():
            if self.files.read(number).get("status") in ENDED:  # without locks, others may have run it as well
                shutil.rmtree(run)
                return
            try:
                super().end_trial(trial)  # scores it
            except RuntimeError as error:  # of max_consecutive_failed_trials
                too_many = error
            trial = self.trials[trial.trial_id]
            if trial.status == "FAILED":  # whose message is lost on the way from KerasTuner's own workers
                reason = run / "error.txt"
                trial.message = reason.read_text() if reason.exists() else f"{self.objective.name} was {trial.score}"
            ended = {"ended": time.time(), "sha256": checksum(run / CHECKPOINT)}
            self.files.write(number, state | trial.get_state() | ended)
            self.read()
            for id in set(self.end_order) - {each.trial_id for each in self.best_trials()}:
                (self.run_folder(int(id)) / CHECKPOINT).unlink(missing_ok=True)  # it can take up 13 MB
        if too_many:
            stop(one_line(too_many))

    def _save_trial(self, trial):
        """Private in KerasTuner: writes a trial's file where it stands; here end_trial() does, whole."""

    def save(self):
        """Writes nothing: the files of the trials are the whole state."""
