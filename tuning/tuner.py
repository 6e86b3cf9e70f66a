"""Runs the trials of a search, resumes it, and loads its best models.

What is private in KerasTuner is used in this file only.
"""

import hashlib
import os
import shutil
import sys
import textwrap
import time
import warnings

import keras
import keras_tuner as kt
import numpy as np

from tuning import chief, process, workers
from tuning.bayesian import BayesianOptimizationOracle
from tuning.oracles import RandomSearchOracle
from tuning.text import printable
from tuning.trials import number

kt.src.config.DEBUG = False  # private: else KerasTuner prints a traceback of each failed trial, which is reported


def _shows_progress_bars():
    """Whether the output goes to a terminal in which Keras' progress bars can be drawn."""
    plain = os.environ.get("TERM", "dumb") == "dumb" or "NO_COLOR" in os.environ
    return sys.stdout.isatty() and not plain and shutil.get_terminal_size().columns >= 80


class Tuner(kt.Tuner):
    """KerasTuner's tuner, whose search can be interrupted at any instant, resumed, and run in parallel.

    Args:
        hypermodel: a kt.HyperModel; its fit() gets the arguments of search().
        project: a Project whose context is open.
        options: those of the oracle, such as `objective`, `max_trials` and `seed`.

    Raises:
        BadInput: the project holds a search with other settings.
    """

    oracle_class = None

    def __init__(self, hypermodel, *, project, **options):
        self.project = project
        oracle = self.oracle_class(project, **options)
        super().__init__(oracle, hypermodel, directory=str(project.folder.parent), project_name=project.folder.name)
        self.seed = oracle.seed
        keras.backend.clear_session()  # or the names of the layers would depend on what was built before
        network = hypermodel.build(oracle.get_space()).to_json()
        project.check_settings(
            {f"search space of {hp.name}": str(hp) for hp in oracle.get_space().space}
            | {"objective": oracle.objective.name, "network": hashlib.sha256(network.encode()).hexdigest()[:8]}
        )
        self.precision = project.settings["precision"]
        if workers.is_worker():
            self.oracle = workers.ChiefClient(self.oracle, project.folder)
        else:
            oracle.restore()

    def search(self, *args, validation_data, **kwargs):
        """Runs the trials that are missing.

        Args:
            args, kwargs: the arguments of the hypermodel's fit().
            validation_data: a tuple (inputs, targets).
        """
        self.validation_data = validation_data
        kwargs["validation_data"] = validation_data
        kwargs.pop("verbose", None)  # what is shown depends on where it is shown
        if self.project.options.tensorboard:  # KerasTuner gives each trial a folder and adds its hyperparameters
            logs = keras.callbacks.TensorBoard(self.project.folder / "tensorboard")
            kwargs["callbacks"] = [*kwargs.get("callbacks", ()), logs]
        if workers.is_worker():
            super().search(*args, **kwargs)
            workers.leave(self.project.folder)
            return
        self.forget_damaged_trials()
        if self.oracle.missing() is None:
            return
        if self.project.options.workers == 1 and not workers.is_chief():
            super().search(*args, **kwargs)
        else:
            count = min(self.project.options.workers, self.oracle.max_trials)
            chief.run(self.oracle, self.project.folder, count, super().search)
        if self.forget_damaged_trials():
            raise process.SearchFailed(f"a checkpoint can't be read back. {process.resume_hint()}")

    def forget_damaged_trials(self):
        """Makes those of the best trials missing whose checkpoint doesn't give their score; returns their number."""
        damaged = [trial for trial in self.oracle.best_trials() if not self._gives_its_score(trial)]
        for trial in damaged:
            path = self.project.checkpoint(trial.trial_id)
            print(f"{path} is missing, damaged or of another training: trial {number(trial.trial_id)} is trained again")
            self.oracle.forget(trial.trial_id)
        return len(damaged)

    def _gives_its_score(self, trial):
        try:
            model = self.load_model(trial)
        except Exception:  # whatever a damaged file makes of its reader
            return False
        logs = model.evaluate(*self.validation_data, batch_size=1000, verbose=0, return_dict=True)
        score = logs[self.oracle.objective.name.removeprefix("val_")]
        return abs(score - trial.score) <= 1e-3 * max(1, abs(trial.score))  # another CPU may round otherwise

    def load_model(self, trial):
        with warnings.catch_warnings():
            # The checkpoint has an optimizer's variables; a model that is only to predict doesn't need them.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            return super().load_model(trial)

    # --- One trial ----------------------------------------------------------------------------------------------------

    def _build_hypermodel(self, hp):  # private: KerasTuner resets Keras, and with it the dtype policy, just before
        keras.config.set_dtype_policy(self.precision)
        return super()._build_hypermodel(hp)

    def run_trial(self, trial, *args, **kwargs):
        failure = self.project.trial_folder(trial.trial_id) / "failure.txt"
        failure.unlink(missing_ok=True)
        # What an interrupted run of this trial has left.
        self.project.checkpoint(trial.trial_id).unlink(missing_ok=True)
        shutil.rmtree(self.project.folder / "tensorboard" / trial.trial_id, ignore_errors=True)
        # The same seed whatever ran before in this process.
        seeds = np.random.SeedSequence([self.seed, int(trial.trial_id)])
        keras.utils.set_random_seed(int(seeds.generate_state(1)[0]))
        try:
            return super().run_trial(trial, *args, verbose=1 if _shows_progress_bars() else 2, **kwargs)
        except kt.errors.FatalError:
            raise
        except Exception as error:
            if process.is_storage_error(error) or isinstance(error, ImportError):  # not the trial's fault
                raise kt.errors.FatalRuntimeError(process.one_line(error)) from error
            failure.write_text(printable(textwrap.shorten(f"{type(error).__name__}: {error}", 200)))
            raise

    def on_epoch_begin(self, trial, model, epoch, logs=None):
        self.epoch_started = time.monotonic()

    def on_epoch_end(self, trial, model, epoch, logs=None):
        for name in ("loss", self.oracle.objective.name):
            if name in logs and not np.isfinite(logs[name]):  # KerasTuner itself reports a missing objective
                raise kt.errors.FailedTrialError(f"the {name} was {logs[name]} in epoch {epoch + 1}")
        logs = logs | {"seconds": time.monotonic() - self.epoch_started}
        self.oracle.update_trial(trial.trial_id, logs, step=epoch)  # KerasTuner itself would keep the best epoch only

    def pre_create_trial(self):
        if workers.is_worker():
            time.sleep(0.5)  # while others work on the last trials, KerasTuner asks for one again and again

    def save(self):
        """Writes nothing: the files of the trials are the whole state."""


class RandomSearch(Tuner):
    """Draws each trial's hyperparameters at random."""

    oracle_class = RandomSearchOracle


class BayesianOptimization(Tuner):
    """Tries what a Gaussian process deems best, after `num_initial_points` random trials."""

    oracle_class = BayesianOptimizationOracle
