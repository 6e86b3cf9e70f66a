"""Bayesian optimisation, as resumable as random search."""

import warnings

import keras_tuner as kt
import numpy as np
import sklearn.exceptions

from tuning.oracles import RandomSearchOracle
from tuning.trials import ENDED, StoredTrial


class BayesianOptimizationOracle(RandomSearchOracle):
    """Tries what a Gaussian process deems best, once it has enough completed trials.

    Args:
        project: a Project.
        num_initial_points: trials that must be completed before the process proposes; until then trials are random.
        options: those of kt.Oracle.
    """

    strategy = "Bayesian optimization"

    def __init__(self, project, num_initial_points, **options):
        super().__init__(project, **options)
        self.num_initial_points = num_initial_points

    def restore(self):
        super().restore()
        if self.max_trials <= self.num_initial_points:
            print(f"All trials are random: the Gaussian process proposes from trial {self.num_initial_points + 1} on")

    def is_random(self, trial):
        return trial.hyperparameters.values == self.draw(self.seeds(trial.trial_id)[0])

    def propose(self, trial_id, tried):
        before = {id: trial for id, trial in self.trials.items() if int(id) < int(trial_id)}
        scores = [trial.score for trial in before.values() if trial.status == "COMPLETED"]
        if len(scores) < self.num_initial_points:
            return super().propose(trial_id, tried)
        for id, trial in before.items():
            if trial.status not in ENDED:  # expected to score as the others do, so that it is not proposed again
                before[id] = StoredTrial(trial.hyperparameters, id, "COMPLETED")
                before[id].score = float(np.mean(scores))
        seeds = self.seeds(trial_id)
        # KerasTuner stores no state of this oracle's sampler, so each trial has an oracle of its own.
        oracle = kt.oracles.BayesianOptimizationOracle(
            objective=self.objective,
            max_trials=self.max_trials,
            num_initial_points=self.num_initial_points,
            seed=seeds[1],
            hyperparameters=self.get_space(),
        )
        oracle.trials = before
        with warnings.catch_warnings():
            # Of a kernel scale at its bound: with so few trials it often is, and nobody can act on it.
            warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
            values = oracle.populate_space(trial_id)["values"]
        if values not in tried:
            return values
        # The process proposes one point only, so the best of a thousand others by its own measure takes its place.
        others = [values for values in map(self.draw, seeds[1:]) if values not in tried]
        if not others:
            return None
        space = [hp for hp in self.hyperparameters.space if not isinstance(hp, kt.engine.hyperparameters.Fixed)]
        points = [[hp.value_to_prob(values.get(hp.name, hp.default)) for hp in space] for values in others]
        mean, deviation = oracle.gpr.predict(points, return_std=True)
        return others[np.argmin(mean - oracle.beta * deviation)]
