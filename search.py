"""How a search is run and resumed: its oracle and its tuner."""

import contextlib
import os
import platform
import shutil
import sys
import textwrap
import time
from pathlib import Path

import common  # first: it sets up TensorFlow before anything else imports it

import keras
import keras_tuner as kt
import numpy as np
import tensorflow as tf

import storage
import workers

kt.src.config.DEBUG = False  # a failed trial is told in one line, not in a traceback


def duration(seconds):
    """Seconds as people say them: 0h 12m 03s."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}h {minutes % 60:02d}m {seconds:02d}s"


def printable(text):
    """The text with a question mark for each character that a terminal would obey instead of show."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def describe(hp):
    """The hyperparameters of a trial in one line."""
    units, dropout, learning_rate, optimizer = common.formatted(hp.values).values()
    return f"units {units}, dropout {dropout}, learning rate {learning_rate}, {optimizer}"


def learning_curves(trial):
    """What was measured in each epoch of a trial: a dictionary from the metric's name to a list of floats."""
    return {name: [float(each.mean()) for each in trial.metrics.get_history(name)] for name in trial.metrics.metrics}


def seconds_trained(trial):
    """Seconds that a trial has spent in fit, its validation included."""
    return sum(learning_curves(trial).get("seconds", ()))


def trial_seed(seed, trial_id):
    """A seed for each trial of a search, the same whatever ran before it in the same process."""
    return int(np.random.SeedSequence([seed, int(trial_id)]).generate_state(1)[0])


def failure_file(project, trial):
    """Where a trial that failed leaves its reason, for the chief as well: a Path."""
    return project / f"trial_{trial.trial_id}" / "failure.txt"


ENDED = ("COMPLETED", "FAILED")


def has_ended(trial):
    """Whether the trial was completed or failed, rather than interrupted or not yet run."""
    return trial.status in ENDED


class ResumableOracle(kt.Oracle):
    """Makes an oracle of KerasTuner resumable and lets it report: inherit from this class first, then from the oracle.

    What a trial tries depends on the seed, the trial's number and the results before it, never on what else happened
    in this process. So the trials' own files are the whole state of a search. KerasTuner has no public way to set its
    seed, its queue of trials to run again and its record of what was tried: these are its private attributes.
    """

    stopwatch = None
    all_handed_out = False

    def first_seed(self, trial_id):
        """The seed of a trial's first hyperparameter, from which KerasTuner counts on for the others.

        For seed 1 it is KerasTuner's own. Other seeds lie a million apart: KerasTuner counts on from trial to trial as
        well, so that its searches with seeds 1 and 5 share 9 of 10 trials.
        """
        return 1_000_000 * (self.seed - 1) + 1 + int(trial_id) * len(self.hyperparameters.space)

    def populate_space(self, trial_id):
        self._seed_state = self.first_seed(trial_id)
        return super().populate_space(trial_id)

    def is_random(self, trial):
        """Whether the trial's hyperparameters were drawn at random, rather than proposed by a model of the results."""
        first_seed = self.first_seed(trial.trial_id)
        return trial.hyperparameters.values == {
            hp.name: hp.random_sample(first_seed + i) for i, hp in enumerate(self.hyperparameters.space)
        }

    def restore(self, project):
        """Takes up a stored search from its trials' files; what is damaged is named and will be trained again.

        Args:
            project: the folder of the search, a Path.
        """
        self.project = project
        self.settings = storage.read_json(project / "settings.json")
        self.verbose = 0  # KerasTuner shows the trials its own way
        self.max_consecutive_failed_trials = None  # three failures in a row are no reason to end a search
        ended = {}
        for path in project.glob("trial_[0-9]*/trial.json"):
            state = storage.read_json(path)
            if state.get("status") in ENDED:
                ended[int(state["trial_id"])] = kt.engine.trial.Trial.from_state(state)
                continue
            if not state:
                print(f"{path} is damaged: left out, its trial is trained again")
            shutil.rmtree(path.parent)  # with more --max-trials than before, its new one's name has more digits
        for number in range(max(ended, default=-1) + 1):
            if number in ended:
                trial = ended[number]
                self._record_values(trial)
            elif number < self.max_trials:
                trial_id = f"{number:0{len(str(self.max_trials))}d}"
                trial = kt.engine.trial.Trial(self.get_space(), trial_id, status="INVALID")
                self._retry_queue.insert(0, trial_id)  # KerasTuner takes from the end
            else:
                continue
            self.trials[trial.trial_id] = trial
        self.stopwatch = storage.Stopwatch(project / "elapsed.json", sum(map(seconds_trained, self.trials.values())))

    def propose_again(self, trial_id):
        """Gives a trial that was left out its hyperparameters, from the results before it and no later ones."""
        with self.knowing({id: trial for id, trial in self.trials.items() if int(id) < int(trial_id)}):
            values = self.populate_space(trial_id)["values"]
        self.trials[trial_id].hyperparameters.values = values
        self._record_values(self.trials[trial_id])

    @contextlib.contextmanager
    def knowing(self, trials):
        """Leaves the oracle only these of its trials, a dictionary by their ids, to propose from."""
        all_trials, self.trials = self.trials, trials
        yield
        self.trials = all_trials

    @kt.synchronized
    def create_trial(self, tuner_id):
        if self._retry_queue and tuner_id not in self.ongoing_trials:
            self.propose_again(self._retry_queue[-1])
        trial = super().create_trial(tuner_id)
        if trial.status == "RUNNING":
            trial.metrics = type(trial.metrics)()  # a worker that was killed may have left some
            self.stopwatch.running = True
            name = f"Trial {int(trial.trial_id) + 1} of {self.max_trials}"
            print(f"\n{name}: {describe(trial.hyperparameters)}")
        handed_out = not self._retry_queue and len(self.trials) >= self.max_trials
        self.all_handed_out = handed_out or trial.status == "STOPPED"  # that too where the search space is used up
        return trial

    @kt.synchronized
    def update_trial(self, trial_id, metrics, step=0):
        trial = super().update_trial(trial_id, metrics, step)
        self.stopwatch.save()
        if workers.is_chief():  # else Keras shows each epoch
            print(
                f"Trial {int(trial_id) + 1}, epoch {step + 1}: val_accuracy {metrics['val_accuracy']:.4f}, "
                f"{metrics['seconds']:.1f} s"
            )
        return trial

    @kt.synchronized
    def end_trial(self, trial):
        if trial.status != "COMPLETED":  # its message is lost on the way from a worker
            trial.message = failure_file(self.project, trial).read_text()
        super().end_trial(trial)
        self.report_progress(self.trials[trial.trial_id])

    def _save_trial(self, trial):  # private: KerasTuner itself writes in place and without a checksum
        # With the settings, in case that settings.json is lost: trials of different ones are never mixed.
        state = trial.get_state() | {"settings": self.settings}
        storage.write_json(Path(self._get_trial_dir(trial.trial_id), "trial.json"), state)

    def report_progress(self, trial):
        """Says how a trial ended, which is the best so far, and how long the rest may take."""
        name = f"Trial {int(trial.trial_id) + 1} of {self.max_trials}"
        if trial.status == "COMPLETED":
            outcome = f"val_accuracy {trial.score:.4f} in epoch {trial.best_step + 1}"
        else:
            outcome = f"failed: {trial.message}"
        print(f"{name}: {outcome}, {duration(seconds_trained(trial))}")
        best = self.get_best_trials(1)[0]
        if best.status == "COMPLETED":
            print(f"Best so far: {best.score:.4f}, trial {int(best.trial_id) + 1} ({describe(best.hyperparameters)})")
        ended = list(filter(has_ended, self.trials.values()))
        left = self.max_trials - len(ended)
        at_a_time = len(self.ongoing_trials) + 1  # those at work elsewhere, and the one that takes this one's place
        seconds = sum(map(seconds_trained, ended)) / len(ended) * left / at_a_time
        if left > 0:  # --max-trials may be fewer than are stored
            print(f"Trials left: {left}, about {duration(seconds)}; then the best model is trained")

    def save(self):
        """Writes nothing: the trials' own files are the whole state."""


def hardware():
    """What this process runs on: the CPU's name, its cores as the system counts them, and the names of the GPUs."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": [each.get("device_name", "GPU") for each in details],
    }


def versions():
    """The versions of Python and of the packages that a result depends on."""
    packages = {module.__name__: module.__version__ for module in (tf, keras, kt, np)}
    return {"python": platform.python_version(), **packages}


class Tuner(kt.Tuner):
    """KerasTuner's tuner with trials that can be repeated and failures that are told apart.

    Args:
        oracle: a ResumableOracle.
        hypermodel: a kt.HyperModel.
        settings: the parsed options, after open_project().
    """

    def __init__(self, oracle, hypermodel, settings):
        self.settings = settings
        super().__init__(oracle, hypermodel, directory=settings.results_dir, project_name=settings.project.name)
        if not workers.is_worker():
            oracle.restore(settings.project)

    def search(self, *args, **kwargs):
        """Runs the trials that are left; takes the arguments of keras.Model.fit that a trial needs."""
        self.fit_arguments = args, kwargs
        if self.settings.tensorboard:  # KerasTuner gives each trial a folder and adds its hyperparameters
            kwargs = kwargs | {"callbacks": [keras.callbacks.TensorBoard(self.settings.project / "tensorboard")]}
        oracle = self.oracle
        if workers.is_worker():
            with workers.asking_chief():
                super().search(*args, **kwargs)
            sys.exit()  # the rest is its chief's
        elif self.settings.workers == 1 and not workers.is_chief():
            super().search(*args, **kwargs)
        elif oracle._retry_queue or len(oracle.trials) < self.settings.max_trials:
            gpus = len(tf.config.list_physical_devices("GPU"))
            count = min(self.settings.workers, self.settings.max_trials)
            workers.run_chief(oracle, count, gpus, super().search)

    def run_trial(self, trial, *args, **kwargs):
        failure_file(self.settings.project, trial).unlink(missing_ok=True)
        keras.utils.set_random_seed(trial_seed(self.settings.seed, trial.trial_id))
        # What an interrupted run of this trial has logged.
        shutil.rmtree(self.settings.project / "tensorboard" / trial.trial_id, ignore_errors=True)
        try:
            return super().run_trial(trial, *args, **kwargs)
        except kt.errors.FatalError:
            raise
        except Exception as error:
            reason = printable(textwrap.shorten(f"{type(error).__name__}: {error}", 200))
            if common.is_storage_error(error):  # not the trial's fault: end the search, keep the trial for the next run
                raise kt.errors.FatalRuntimeError(reason) from error
            failure_file(self.settings.project, trial).write_text(reason)
            raise

    def on_trial_end(self, trial):
        has_reason = failure_file(self.settings.project, trial).exists()
        if workers.is_worker() and trial.status != "COMPLETED" and not has_reason:
            # KerasTuner takes it for the trial's failure when it can't ask the chief how the trial went.
            raise workers.WorkerError(f"the chief at {workers.chief_address()} failed")
        super().on_trial_end(trial)

    def on_epoch_begin(self, trial, model, epoch, logs=None):
        self.epoch_started = time.monotonic()

    def on_epoch_end(self, trial, model, epoch, logs=None):
        if not np.isfinite(logs["loss"]):
            raise kt.errors.FailedTrialError(f"the loss was {logs['loss']} in epoch {epoch + 1}")
        logs = logs | {"seconds": time.monotonic() - self.epoch_started}
        with workers.asking_chief():  # KerasTuner itself would keep the best epoch only
            self.oracle.update_trial(trial.trial_id, logs, step=epoch)

    def save(self):
        """Writes nothing: the trials' own files are the whole state."""

    def best_model(self):
        """Loads best_model.keras of a finished search; trains it where it is missing, damaged, or of another trial.

        To train the best hyperparameters anew is KerasTuner's advice (see its get_best_models); here, it takes longer
        than a trial.

        Returns:
            A compiled keras.Model that computes in float32, on any machine, and takes raw images of shape (n, 28, 28),
            values 0 to 255; and the content of best_model.json: the trial, the model's accuracy and loss on the
            validation images, the seconds of its training, its learning curves, and what it was trained with.

        Raises:
            common.SearchFailed: no trial was completed.
        """
        trial = self.oracle.get_best_trials(1)[0]
        if trial.status != "COMPLETED":  # get_best_trials falls back on failed ones
            raise common.SearchFailed(f"all trials failed, the first one with {trial.message}")
        number = int(trial.trial_id) + 1
        path = self.settings.project / "best_model.keras"
        record, model = storage.read_json(path.with_suffix(".json")), None
        with contextlib.suppress(Exception):  # whatever a damaged file makes of its reader
            model = keras.models.load_model(path)
        if record.get("trial") == number and model and model.name == f"trial_{number}":
            return model, record
        if (record or path.exists()) and not (record and model):
            print(f"{path} or its .json is missing or damaged: the model is trained again")
        return self.train_best_model(trial, path)

    def train_best_model(self, trial, path):
        """Trains the best model with the hyperparameters of `trial` and saves it; returns what best_model() does."""
        number = int(trial.trial_id) + 1
        networks = f"{common.FINAL_NETWORKS} networks at once"
        print(f"\nBest model: trained with the hyperparameters of trial {number}, {networks}")
        self.oracle.stopwatch.running = True
        keras.utils.set_random_seed(trial_seed(self.settings.seed, trial.trial_id))
        args, kwargs = self.fit_arguments
        started = time.monotonic()
        clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.oracle.stopwatch.save())
        ensemble, curves = self.hypermodel.train_final(trial.hyperparameters, *args, callbacks=[clock], **kwargs)
        seconds = time.monotonic() - started
        model = common.average(ensemble, f"trial_{number}")
        loss, accuracy = model.evaluate(*kwargs["validation_data"], batch_size=1000, verbose=0)
        if not np.isfinite(loss):
            raise common.SearchFailed(
                f"the best model's loss became {loss}: another --seed with another --results-dir may do better"
            )
        print(f"Best model: val_accuracy {accuracy:.4f} as the mean of its networks, {duration(seconds)}")
        with storage.whole_file(path) as draft:
            model.save(draft)
        record = {
            "trial": number,
            "val_accuracy": accuracy,
            "val_loss": loss,
            "seconds": seconds,
            "curves": curves,
            "versions": versions(),
            "hardware": hardware(),
        }
        storage.write_json(path.with_suffix(".json"), record)
        return keras.models.load_model(path), record
