"""A trial: its file, what was measured in it, and what is printed of it."""

from pathlib import Path

import keras_tuner as kt

from tuning.files import write_json
from tuning.text import describe, duration

ENDED = ("COMPLETED", "FAILED")


def number(trial_id):
    """The number by which people call a trial, from 1."""
    return int(trial_id) + 1


def learning_curves(trial):
    """What was measured in each epoch of a trial: a dictionary from the metric's name to a list of floats."""
    return {name: [float(each.mean()) for each in trial.metrics.get_history(name)] for name in trial.metrics.metrics}


def seconds_trained(trial):
    """Seconds that a trial has spent in fit, its validation included."""
    return sum(learning_curves(trial).get("seconds", ()))


class StoredTrial(kt.engine.trial.Trial):
    """A trial whose file is whole at every instant and says with which settings it was trained."""

    settings = None

    def save(self, fname):
        write_json(Path(fname), self.get_state() | {"settings": self.settings})


def report(trial, oracle):
    """Prints how a trial ended, which is the best so far, and how long the rest may take."""
    name = f"Trial {number(trial.trial_id)} of {oracle.max_trials}"
    outcome = f"failed: {trial.message}"
    if trial.status == "COMPLETED":
        outcome = f"{oracle.objective.name} {trial.score:.4f} in epoch {trial.best_step + 1}"
    print(f"{name}: {outcome}, {duration(seconds_trained(trial))}")
    for best in oracle.best_trials(1):
        print(f"Best so far: {best.score:.4f}, trial {number(best.trial_id)} ({describe(best.hyperparameters.values)})")
    ended = [each for each in oracle.trials.values() if each.status in ENDED]
    left = oracle.max_trials - len(ended)
    at_a_time = len(oracle.ongoing_trials) + 1  # those at work elsewhere, and the one that takes this one's place
    if left > 0:  # --max-trials may be fewer than are stored
        seconds = sum(map(seconds_trained, ended)) / len(ended) * left / at_a_time
        print(f"Trials left: {left}, about {duration(seconds)}")
