"""The two strategies as KerasTuner tuners, whose search any number of processes share."""

import functools
import hashlib
import inspect
import json
import shutil
import time
import traceback
import warnings
from pathlib import Path

from tuning import environment, processes, progress, proposals, tables
from tuning.command_line import KEPT, one_line, stop
from tuning.environment import keras, kt, np, tf
from tuning.folder import Folder, whole_file
from tuning.oracle import FolderOracle
from tuning.trials import EPOCHS

# Options that may change between two runs of one search. All others are its settings: they decide what comes out.
RUN_OPTIONS = {"max_trials", "workers", "precision", "results_dir", "overwrite", "tensorboard", "deterministic"}
AT_A_TIME = 2  # trials: each is proposed without the results of those beside it, and four lose nearly the whole lead
ORACLE_OPTIONS = {"hyperparameters", "tune_new_entries", "allow_new_entries", "max_consecutive_failed_trials"}
TUNER_OPTIONS = {"executions_per_trial", "max_model_size", "optimizer", "loss", "metrics", "distribution_strategy"}


class Tuner(kt.Tuner):
    """KerasTuner's tuner, whose search can be interrupted at any instant, resumed, and run by several processes.

    Args:
        hypermodel, objective: as for kt.Tuner.
        name: of the search's folder in --results-dir.
        args: the parsed command line.
        options: those of kt.Oracle and kt.Tuner that the command line does not decide.
    """

    strategy = waits = None  # its name; whether it needs the results of earlier trials

    def __init__(self, hypermodel, objective, name, args, **options):
        for option in options.keys() - ORACLE_OPTIONS - TUNER_OPTIONS:
            stop(f"{option}= can't be given to {type(self).__name__}: --help lists the options", status=2)
        self.args, self.folder = args, Folder(args.results_dir / name, args.overwrite)
        oracle_options = {"max_consecutive_failed_trials": None}  # failures are reported; the search goes on
        oracle_options |= {option: options.pop(option) for option in ORACLE_OPTIONS & options.keys()}
        oracle_options |= {"objective": objective, "max_trials": args.max_trials, "seed": args.seed}
        # In a worker of KerasTuner's chief, self.oracle is a proxy, which has only KerasTuner's own methods.
        self.shared_oracle = FolderOracle(self.folder, self.proposer(), self.waits, **oracle_options)
        super().__init__(self.shared_oracle, hypermodel, directory=args.results_dir, project_name=name, **options)
        self.settings = self._settle()
        self.shared_oracle.at_a_time = self.settings["trials at a time"]
        self.precision = self.settings["precision"]
        environment.set_up(self.precision, args.deterministic)
        self.shared_oracle.read()

    def _settle(self):
        """Stores or compares the settings of the search; returns those that count."""
        args, oracle = vars(self.args), self.shared_oracle
        settings = {name: value for name, value in args.items() if name not in RUN_OPTIONS}
        settings |= {"strategy": self.strategy, "objective": str(oracle.objective)}
        settings |= {f"search space of {hp.name}": str(hp) for hp in oracle.get_space().space}
        keras.utils.clear_session()  # in a notebook, Keras counts its names on
        fastest = environment.fastest_precision()
        keras.config.set_dtype_policy(fastest)
        model = self.hypermodel.build(oracle.get_space())
        settings["network"] = fingerprint(model)
        # A network without a float32 output was not written for mixed precision, nor may its loss and metrics be.
        written_for_it = {each.dtype for each in getattr(model, "outputs", None) or ()} == {"float32"}
        if args["precision"] != "auto":
            settings["precision"] = args["precision"]
        defaults = {
            "precision": fastest if written_for_it else "float32",
            "trials at a time": args["workers"] or AT_A_TIME,
        }
        return self.folder.settle(settings, defaults, environment.versions())

    def search(self, *fit_args, **fit_kwargs):
        """Runs the trials that are missing, with the arguments of the hypermodel's fit()."""
        self.fit_data = fit_args[0] if fit_args else fit_kwargs.get("x")
        self.fit_kwargs = dict(fit_kwargs)  # the report evaluates with the same data and batches
        fit_kwargs.pop("verbose", None)  # what is shown depends on where it is shown
        parameters = inspect.signature(self.hypermodel.fit).parameters.values()
        if any(each.name == "verbose" or each.kind is each.VAR_KEYWORD for each in parameters):
            fit_kwargs["verbose"] = 0
        if self.args.tensorboard:  # KerasTuner gives each trial a folder and adds its hyperparameters
            logs = keras.callbacks.TensorBoard(self.folder.path / "tensorboard")
            fit_kwargs["callbacks"] = [*fit_kwargs.get("callbacks", ()), logs]
        try:
            if self.args.workers == 0:
                path, objective = self.folder.path, self.shared_oracle.objective
                trials = self.shared_oracle.trials.values()
                for trial in trials:
                    if not (trial.has_ended or self.folder.is_alive(trial.process)):
                        trial.status = "INTERRUPTED"
                records = [trial.record(path, objective) for trial in trials]
                raise SystemExit(tables.print_trials(records, objective))
            if processes.is_child() or self._is_worker():  # private, as its name says
                raise SystemExit(super().search(*fit_args, **fit_kwargs))  # the process that a person started reports
            self._search(fit_args, fit_kwargs)
        except BaseException as error:
            self.folder.__exit__()
            if isinstance(error, kt.errors.FatalError):
                stop(f"{one_line(error).rstrip('.')}. {KEPT}.")
            raise

    def _search(self, fit_args, fit_kwargs):
        oracle = self.shared_oracle
        oracle.forget_damaged()
        missing = sum(not oracle.has_ended(number) for number in range(1, oracle.max_trials + 1))
        count = min(self.args.workers or environment.most_processes(), missing or 1)
        count = min(count, oracle.at_a_time) if oracle.waits else count
        if missing:
            found = environment.describe(self.precision)
            print(f"{found}, {count} trial{'s' * (count > 1)} at a time")
        shown = progress.Progress(oracle, fit_kwargs.get("epochs"), count)
        with processes.started(0 if "chief" in self.tuner_id else count - 1), shown:
            super().search(*fit_args, **fit_kwargs)
        if oracle.forget_damaged():
            self._search(fit_args, fit_kwargs)

    # --- One trial: KerasTuner calls these --------------------------------------------------------------------------

    idle = False  # whether there was no trial to run the last time

    def pre_create_trial(self):
        time.sleep(self.idle)
        self.idle = True

    def on_trial_begin(self, trial):
        self.idle = False

    def get_trial_dir(self, trial_id):
        return str(self.shared_oracle.run_folder(trial_id))

    def _build_hypermodel(self, hp):  # private: KerasTuner resets Keras, and with it the dtype policy, just before
        keras.config.set_dtype_policy(self.precision)
        return super()._build_hypermodel(hp)

    def run_trial(self, trial, *args, **kwargs):
        shutil.rmtree(self.folder.path / "tensorboard" / trial.trial_id, ignore_errors=True)  # of an interrupted run
        keras.utils.set_random_seed(proposals.stable_seed(self.args.seed, int(trial.trial_id)))
        self.began = time.monotonic()
        try:
            return super().run_trial(trial, *args, **kwargs)
        except kt.errors.FatalError:
            raise
        except (OSError, ImportError, MemoryError, tf.errors.ResourceExhaustedError) as error:  # not the trial's fault
            hint = "" if isinstance(error, OSError | ImportError) else " (out of memory: fewer --workers may help)"
            raise kt.errors.FatalRuntimeError(one_line(error) + hint) from error
        except Exception as error:
            text = f"{type(error).__name__}: {one_line(error)}\n\n{traceback.format_exc()}"
            Path(self.get_trial_dir(trial.trial_id), "error.txt").write_text(text, encoding="utf-8")
            raise

    def on_epoch_begin(self, trial, model, epoch, logs=None):
        # On a full disk, HDF5 crashes the process: so there must be room for what it is going to write.
        variables = [*model.variables, *getattr(getattr(model, "optimizer", None), "variables", ())]
        room = Path(self.get_trial_dir(trial.trial_id), "room")
        with whole_file(room) as draft:
            draft.write_bytes(bytes(100_000 + 4 * sum(int(np.prod(each.shape)) for each in variables)))
        room.unlink()

    def on_epoch_end(self, trial, model, epoch, logs=None):
        metrics = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        for name in ("loss", self.oracle.objective.name):
            if not np.isfinite(metrics.get(name, 0)):
                raise kt.errors.FailedTrialError(f"the {name} was {metrics[name]} in epoch {epoch + 1}")
        metrics["seconds"], self.began = time.monotonic() - self.began, time.monotonic()
        with open(Path(self.get_trial_dir(trial.trial_id), EPOCHS), "a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def _try_build(self, hp):  # private: a subclassed model has no weights before its first batch
        model = super()._try_build(hp)
        if not model.built and self.fit_data is not None:
            x = next(iter(self.fit_data))[0] if isinstance(self.fit_data, tf.data.Dataset) else self.fit_data
            model(keras.tree.map_structure(lambda each: each[:1], x))
        return model

    def load_model(self, trial):
        with warnings.catch_warnings():
            # The checkpoint has an optimizer's variables; a model that is only to predict doesn't need them.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            return super().load_model(trial)

    def save(self):
        """Writes nothing: the files of the trials are the whole state."""


def fingerprint(model):
    """Eight digits that change with a network, not with names, line numbers, folders or random default seeds."""

    def relevant(entry):
        ignored = {"name", "seed", "module", "registered_name", "dtype"}
        compiled_code = entry.get("class_name") == "__lambda__"  # which holds the path of its file
        return None if compiled_code else {name: value for name, value in entry.items() if name not in ignored}

    try:
        config = json.loads(model.to_json(), object_hook=relevant)
    except (NotImplementedError, TypeError, ValueError):  # of a class that doesn't say what it is made of
        config = [type(layer).__name__ for layer in model.layers]
    return hashlib.sha256(json.dumps(config).encode()).hexdigest()[:8]


class RandomSearch(Tuner):
    """Draws each trial's hyperparameters at random."""

    strategy, waits = "random search", False

    def proposer(self):
        """The function that proposes a trial's hyperparameters, one of proposals.py."""
        return proposals.propose_random


class BayesianOptimization(Tuner):
    """Tries what a Gaussian process deems best, after --initial-points random trials."""

    strategy, waits = "Bayesian optimization", True

    def proposer(self):
        """The function that proposes a trial's hyperparameters, one of proposals.py."""
        return functools.partial(proposals.propose_bayesian, initial_points=self.args.initial_points)
