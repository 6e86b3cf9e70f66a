"""The two strategies as KerasTuner tuners, whose search any number of processes share."""

import functools
import hashlib
import inspect
import json
import shutil
import time
import traceback
import warnings

from tuning import command_line, environment, processes, progress, proposals
from tuning.command_line import one_line
from tuning.environment import keras, kt, np, tf
from tuning.folder import Folder
from tuning.oracle import FolderOracle

# Options that may change between two runs of one search. All others are its settings: they decide what comes out.
RUN_OPTIONS = {"max_trials", "workers", "precision", "results_dir", "overwrite", "tensorboard", "deterministic"}
AT_A_TIME = 2  # trials; each is proposed without the results of those that run beside it: four lose the whole lead


class Tuner(kt.Tuner):
    """KerasTuner's tuner, whose search can be interrupted at any instant, resumed, and run by several processes.

    Args:
        hypermodel, objective: as for kt.Tuner.
        name: of the search's folder in --results-dir.
        args: the parsed command line.
        options: those of kt.Tuner, and those of kt.Oracle that are about the search space and about failures.
    """

    strategy = propose = waits = None  # its name; a function of proposals.py; whether it needs earlier results

    def __init__(self, hypermodel, objective, name, args, **options):
        of_oracle = "hyperparameters", "tune_new_entries", "allow_new_entries", "max_consecutive_failed_trials"
        of_tuner = inspect.signature(kt.Tuner).parameters.keys() - {"directory", "tuner_id", "project_name", "overwrite"}
        for option in options.keys() - {*of_oracle, *of_tuner}:
            command_line.stop(f"{option}= can't be given to {type(self).__name__}: --help lists the options", status=2)
        self.args, self.folder = args, Folder(args.results_dir / name, args.overwrite and not processes.is_child())
        oracle = FolderOracle(
            self.folder, functools.partial(type(self).propose, **self.proposer_options()), self.waits,
            objective=objective, max_trials=args.max_trials, seed=args.seed,
            **{"max_consecutive_failed_trials": None}  # failures are reported; the search goes on
            | {name: options.pop(name) for name in of_oracle if name in options},
        )  # fmt: skip
        super().__init__(oracle, hypermodel, directory=str(args.results_dir), project_name=name, **options)
        self.files = oracle  # in a worker of KerasTuner's chief, self.oracle is a proxy, which has only KerasTuner's own
        self.settle()
        oracle.read()

    def proposer_options(self):
        """Keyword arguments of the strategy's function of proposals.py: a dictionary."""
        return {}

    def settle(self):
        """Stores or compares the settings of the search, and takes over those that the hardware decided."""
        args, objective = vars(self.args), self.files.objective
        settings = {name: value for name, value in args.items() if name not in RUN_OPTIONS}
        settings |= {"objective": str(objective), "strategy": self.strategy}
        settings |= {f"search space of {hp.name}": str(hp) for hp in self.files.get_space().space}
        settings["network"] = fingerprint(self.hypermodel.build(self.files.get_space()))
        defaults = {"precision": environment.fastest_precision(), "trials at a time": args["workers"] or AT_A_TIME}
        if args["precision"] != "auto":
            settings["precision"] = args["precision"]
        known = self.folder.settle(settings, defaults, environment.versions())
        self.settings, self.files.at_a_time = known, known["trials at a time"]
        self.precision = known["precision"]
        environment.set_up(self.precision, self.args.deterministic)

    def search(self, *fit_args, **fit_kwargs):
        """Runs the trials that are missing, with the arguments of the hypermodel's fit()."""
        self.fit_kwargs = dict(fit_kwargs)  # the report evaluates with the same data and batches
        fit_kwargs.pop("verbose", None)  # what is shown depends on where it is shown
        if {"verbose", "kwargs"} & inspect.signature(self.hypermodel.fit).parameters.keys():
            fit_kwargs["verbose"] = 0
        if self.args.tensorboard:  # KerasTuner gives each trial a folder and adds its hyperparameters
            logs = keras.callbacks.TensorBoard(self.folder.path / "tensorboard")
            fit_kwargs["callbacks"] = [*fit_kwargs.get("callbacks", ()), logs]
        try:
            if self.args.workers == 0:
                progress.show_trials(self.files)
                raise SystemExit
            if processes.is_child() or self._is_worker():  # private, as its name says
                super().search(*fit_args, **fit_kwargs)
                raise SystemExit  # the process that a person started reports
            self.search_with_others(fit_args, fit_kwargs)
        except kt.errors.FatalError as error:
            command_line.stop(one_line(error))
        except BaseException:
            self.folder.leave()
            raise

    def search_with_others(self, fit_args, fit_kwargs):
        """Searches until the best trials' checkpoints are sound, together with processes that this one starts."""
        self.files.forget_damaged()
        missing = sum(not self.files.has_ended(number) for number in range(1, self.args.max_trials + 1))
        count = self.args.workers or environment.most_processes()
        count = min(count, max(1, missing), self.files.at_a_time if self.waits else count)
        if missing:
            hardware = environment.describe(self.precision)
            print(f"{hardware}, {count} trial{'s' * (count > 1)} at a time")
        shown = progress.Progress(self.files, fit_kwargs.get("epochs"), count)
        with processes.started(0 if "chief" in self.tuner_id else count - 1), shown:
            super().search(*fit_args, **fit_kwargs)
        if self.files.forget_damaged():
            self.search_with_others(fit_args, fit_kwargs)

    # --- One trial ----------------------------------------------------------------------------------------------------

    def pre_create_trial(self):
        if getattr(self, "idle", False):  # there was none the last time
            time.sleep(1)
        self.idle = True

    def on_trial_begin(self, trial):
        self.idle = False

    def get_trial_dir(self, trial_id):
        return str(self.files.run_folder(trial_id))

    def _build_hypermodel(self, hp):  # private: KerasTuner resets Keras, and with it the dtype policy, just before
        keras.config.set_dtype_policy(self.precision)
        return super()._build_hypermodel(hp)

    def run_trial(self, trial, *args, **kwargs):
        shutil.rmtree(self.folder.path / "tensorboard" / trial.trial_id, ignore_errors=True)  # of an interrupted run
        keras.utils.set_random_seed(proposals.stable_seed(self.files.seed, int(trial.trial_id)))
        self.began = time.monotonic()
        try:
            return super().run_trial(trial, *args, **kwargs)
        except kt.errors.FatalError:
            raise
        except (OSError, ImportError) as error:  # not the trial's fault
            raise kt.errors.FatalRuntimeError(one_line(error)) from error
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise kt.errors.FatalRuntimeError(f"out of memory, fewer --workers may help: {one_line(error)}") from error
        except Exception as error:
            text = f"{type(error).__name__}: {one_line(error)}\n\n{traceback.format_exc()}"
            (self.files.run_folder(trial.trial_id) / "error.txt").write_text(text, encoding="utf-8")
            raise

    def on_epoch_end(self, trial, model, epoch, logs=None):
        row = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        seconds, self.began = time.monotonic() - self.began, time.monotonic()
        for name in ("loss", self.oracle.objective.name):
            if not np.isfinite(row.get(name, 0)):
                raise kt.errors.FailedTrialError(f"the {name} was {row[name]} in epoch {epoch + 1}")
        progress.write_epoch(self.files.run_folder(trial.trial_id), row, seconds)

    def load_model(self, trial):
        with warnings.catch_warnings():
            # The checkpoint has an optimizer's variables; a model that is only to predict doesn't need them.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            return super().load_model(trial)

    def save(self):
        """Writes nothing: the files of the trials are the whole state."""


def fingerprint(model):
    """Eight digits that change with a network and its training, not with names, line numbers, folders or seeds."""

    def relevant(entry):
        if entry.get("class_name") == "__lambda__":  # compiled code, which holds its file's path
            return None
        ignored = {"name", "seed", "module", "registered_name", "dtype"}
        return {name: value for name, value in entry.items() if name not in ignored}

    try:
        config = json.loads(model.to_json(), object_hook=relevant)
    except (NotImplementedError, TypeError, ValueError):  # of a class that doesn't say what it is made of
        config = [type(layer).__name__ for layer in model.layers]
    return hashlib.sha256(json.dumps(config).encode()).hexdigest()[:8]


class RandomSearch(Tuner):
    """Draws each trial's hyperparameters at random."""

    strategy, propose, waits = "random search", staticmethod(proposals.propose_random), False


class BayesianOptimization(Tuner):
    """Tries what a Gaussian process deems best, after --initial-points random trials."""

    strategy, propose, waits = "Bayesian optimization", staticmethod(proposals.propose_bayesian), True

    def proposer_options(self):
        return {"initial_points": self.args.initial_points}
