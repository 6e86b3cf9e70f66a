"""Random search whose whole state is the files of its trials; Bayesian optimisation builds on it."""

import keras_tuner as kt
import numpy as np

from tuning import workers
from tuning.files import Stopwatch, read_json
from tuning.text import describe
from tuning.trials import ENDED, StoredTrial, number, report, seconds_trained

BEST_TRIALS = 4  # so many keep their checkpoints


class RandomSearchOracle(kt.Oracle):
    """Draws each trial's hyperparameters at random.

    What a trial tries depends on the seed, its number and the results of the trials before it. So a trial that was
    lost, interrupted or damaged is simply missing: its number is handed out next, with the same hyperparameters.

    Args:
        project: a Project.
        options: those of kt.Oracle; `seed` must be at least 1.
    """

    strategy = "random search"

    def __init__(self, project, **options):
        super().__init__(**options, max_consecutive_failed_trials=None)  # failures are reported; the search goes on
        self.project = project
        self.verbose = 0  # this class prints the trials instead
        self.is_finished = False

    def restore(self):
        """Reads the stored trials; what is damaged is reported and will be trained again."""
        for folder in self.project.trial_folders():
            path = folder / "trial.json"
            state = read_json(path)
            if state.get("status") in ENDED:
                self.trials[state["trial_id"]] = StoredTrial.from_state(state)
            elif path.exists() and not state:
                print(f"{path} is damaged: its trial is trained again")
        seconds = sum(map(seconds_trained, self.trials.values()))
        self.stopwatch = Stopwatch(self.project.folder / "elapsed.json", seconds)

    # --- What a trial tries -------------------------------------------------------------------------------------------

    def seeds(self, trial_id):
        """The seeds of a trial's random draws: those after the first are for draws that were tried already.

        KerasTuner counts on from a draw's seed, one for each hyperparameter, and from trial to trial as well: so its
        own searches with seeds 1 and 5 share 9 of 10 trials. Here seeds lie a million apart. With seed 1, the first
        draws are KerasTuner's own.
        """
        first = 1_000_000 * (self.seed - 1) + 1 + int(trial_id) * len(self.hyperparameters.space)
        return [first, *np.random.SeedSequence(first).generate_state(1000).tolist()]

    def draw(self, seed):
        """Hyperparameters drawn at random, a dictionary by their names."""
        options = {"objective": self.objective, "max_trials": 1, "hyperparameters": self.get_space()}
        return kt.oracles.RandomSearchOracle(seed=seed, **options).populate_space("0")["values"]

    def is_random(self, trial):
        """Whether the trial's hyperparameters were drawn at random, rather than proposed by a model of the results."""
        return True

    def propose(self, trial_id, tried):
        """The hyperparameters of a trial, other than those in the list `tried`; None where all were tried."""
        draws = map(self.draw, self.seeds(trial_id))
        return next((values for values in draws if values not in tried), None)

    # --- The life of a trial ------------------------------------------------------------------------------------------

    def forget(self, trial_id):
        """Makes a trial one that is missing."""
        del self.trials[trial_id]
        self.ongoing_trials = {name: trial for name, trial in self.ongoing_trials.items() if trial.trial_id != trial_id}

    def missing(self):
        """The id of the first trial that is missing; None where all have been handed out."""
        return next((id for id in map(str, range(self.max_trials)) if id not in self.trials), None)

    @kt.synchronized
    def lose_worker(self, name):
        """Takes a silent worker for lost: its trial goes to the next one that asks."""
        self.tuner_ids.discard(name)
        trial = self.ongoing_trials.get(name)
        whose = f": trial {number(trial.trial_id)} goes to another one" if trial else ""
        print(f"Worker {name} is taken for lost after {workers.SILENT_SECONDS} s of silence{whose}")
        if trial:
            self.forget(trial.trial_id)

    @kt.synchronized
    def create_trial(self, tuner_id):
        if tuner_id in self.ongoing_trials:  # of a worker that was killed and started again
            self.forget(self.ongoing_trials[tuner_id].trial_id)
        self.tuner_ids.add(tuner_id)
        trial_id = self.missing()
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        values = None if trial_id is None else self.propose(trial_id, tried)
        if values is None:
            if self.ongoing_trials:  # another worker may be lost, and its trial missing again
                return StoredTrial(self.get_space(), status="IDLE")
            self.tuner_ids.discard(tuner_id)
            self.is_finished = True
            return StoredTrial(self.get_space(), status="STOPPED")
        trial = StoredTrial(self.get_space(), trial_id, "RUNNING")
        trial.hyperparameters.values, trial.settings = values, self.project.settings
        self.ongoing_trials[tuner_id] = self.trials[trial_id] = trial
        self.trials = dict(sorted(self.trials.items(), key=lambda item: int(item[0])))  # of equals, the first is best
        trial.save(self.project.trial_folder(trial_id) / "trial.json")
        self.stopwatch.running = True
        print(f"\nTrial {number(trial_id)} of {self.max_trials}: {describe(trial.hyperparameters.values)}")
        return trial

    @kt.synchronized
    def update_trial(self, trial_id, metrics, step=0):
        trial = super().update_trial(trial_id, metrics, step)
        self.stopwatch.save()
        if workers.is_chief():  # else Keras shows each epoch
            name, seconds = self.objective.name, metrics["seconds"]
            print(f"Trial {number(trial_id)}, epoch {step + 1}: {name} {metrics[name]:.4f}, {seconds:.1f} s")
        return trial

    @kt.synchronized
    def end_trial(self, trial):
        if trial.status != "COMPLETED":  # its message is lost on the way from a worker
            trial.message = (self.project.trial_folder(trial.trial_id) / "failure.txt").read_text()
        # Likewise the order of its hyperparameters.
        trial.hyperparameters.values = self.trials[trial.trial_id].hyperparameters.values | trial.hyperparameters.values
        super().end_trial(trial)
        kept = [*self.best_trials(), *self.ongoing_trials.values()]
        for each in self.trials.values():
            if each not in kept:  # a checkpoint can take up 13 MB
                self.project.checkpoint(each.trial_id).unlink(missing_ok=True)
        report(self.trials[trial.trial_id], self)

    def best_trials(self, count=BEST_TRIALS):
        """The best completed trials, at most so many, the best one first."""
        return [trial for trial in self.get_best_trials(count) if trial.status == "COMPLETED"]

    def save(self):
        """Writes nothing: the files of the trials are the whole state."""
