"""The two strategies as KerasTuner tuners, whose search any number of processes share."""

import json
import os
import shutil
import time

from tuning import environment, proposals
from tuning.command_line import one_line, stop, stop_for
from tuning.display import Progress, print_trials
from tuning.environment import keras, kt, np, tf
from tuning.folder import Folder
from tuning.models import fingerprint
from tuning.oracle import FolderOracle

# Options that may change between two runs of one search. All others are its settings: they decide what comes out.
RUN_OPTIONS = {"max_trials", "workers", "results_dir", "overwrite", "tensorboard", "deterministic"}
AT_A_TIME = 2  # trials: each is proposed without the results of those beside it, and four lose nearly the whole lead
ORACLE_OPTIONS = {"hyperparameters", "tune_new_entries", "allow_new_entries"}


class Tuner(kt.Tuner):
    """KerasTuner's tuner, whose search can be interrupted at any instant, resumed, and run by several processes.

    `name` is its folder's in --results-dir, `args` the command line; `options` are more of kt.Oracle's and kt.Tuner's.
    """

    def __init__(self, hypermodel, objective, name, args, **options):
        own = {option: options.pop(option) for option in ORACLE_OPTIONS & options.keys()}
        own |= {"max_trials": args.max_trials, "seed": args.seed, "max_consecutive_failed_trials": None}
        self.args, self.look = args, lambda pause=1: None  # Progress.look() in a process that shows anything
        self.shared_oracle = FolderOracle(self.initial_points, objective=objective, **own)  # self.oracle may be a proxy
        keras.utils.clear_session()  # in a notebook, Keras counts its names on
        path, fastest = args.results_dir.expanduser() / name, environment.fastest_precision()
        keras.config.set_dtype_policy(fastest)
        if args.workers == 0 and not path.exists():
            stop(f"{path} holds no search: --workers 0 only shows one", status=2)
        path.mkdir(parents=True, exist_ok=True)  # TensorFlow's error would be no OSError
        # KerasTuner looks for files of its own where it is told to put them: there are none in this subfolder.
        super().__init__(self.shared_oracle, hypermodel, directory=path, project_name="processes", **options)
        space = self.shared_oracle.get_space()
        model = self.hypermodel.build(space.copy())
        chosen = {n: v for n, v in vars(args).items() if n not in RUN_OPTIONS and (n, v) != ("precision", "auto")}
        settings = chosen | {"strategy": self.strategy, "objective": str(self.shared_oracle.objective)}
        settings |= {f"search space of {hp.name}": str(hp) for hp in space.space} | {"network": fingerprint(model)}
        # A network without a float32 output was not written for mixed precision, nor may its loss and metrics be.
        mixed = {each.dtype for each in getattr(model, "outputs", None) or ()} == {"float32"}
        defaults = {"precision": fastest if mixed else "float32", "trials at a time": args.workers or AT_A_TIME}
        self.folder = Folder(path, args.overwrite, settings | environment.VERSIONS, defaults)
        self.settings, self.precision = self.folder.settings, self.folder.settings["precision"]
        if args.deterministic or not environment.GPUS:  # it costs nothing on CPUs
            tf.config.experimental.enable_op_determinism()
        self.tuner_id += f", {self.folder.me}"  # workers of KerasTuner's chief may share a name, and it counts names
        self.shared_oracle.join(self.folder, self.settings["trials at a time"])

    def search(self, *fit_args, **fit_kwargs):
        """Runs the trials that are missing, with the arguments of the hypermodel's fit()."""
        self.fit_data = fit_args[0] if fit_args else fit_kwargs.get("x")
        self.fit_kwargs, oracle = dict(fit_kwargs), self.shared_oracle  # the report evaluates with the same batches
        fit_kwargs["verbose"] = 0  # what is shown depends on where it is shown
        if self.args.tensorboard:  # KerasTuner gives each trial a folder and adds its hyperparameters
            logs = keras.callbacks.TensorBoard(self.folder.path / "tensorboard")
            fit_kwargs["callbacks"] = [*fit_kwargs.get("callbacks", ()), logs]
        try:
            if self.args.workers == 0:
                raise SystemExit(print_trials([trial.record(oracle.objective) for trial in oracle.trials.values()]))
            if environment.IS_CHILD:  # the process that a person started checks, shows and reports
                raise SystemExit(super().search(*fit_args, **fit_kwargs))
            oracle.forget_damaged()
            while True:
                missing = sum(number not in oracle.ended for number in range(1, oracle.max_trials + 1))
                count = min(self.args.workers or environment.most_processes(), missing or 1)
                count = min(count, oracle.at_a_time) if oracle.waits else count
                if missing:
                    environment.announce(self.precision, count)
                others = 0 if "KERASTUNER_TUNER_ID" in os.environ else count - 1
                with environment.started(others), Progress(oracle, fit_kwargs.get("epochs"), count) as progress:
                    self.look = progress.look
                    super().search(*fit_args, **fit_kwargs)
                if self._is_worker():  # private, as its name says
                    raise SystemExit  # the chief reports
                if not oracle.forget_damaged():
                    break
        except BaseException:
            self.folder.close()
            raise

    def pre_create_trial(self):
        self.look(pause=0)
        time.sleep(self._is_worker() or self.shared_oracle.awaited is not None)  # once a second

    def get_trial_dir(self, trial_id):
        return str(self.shared_oracle.get_trial(trial_id).run_folder)

    def _build_hypermodel(self, hp):  # private: KerasTuner resets Keras, and with it the dtype policy, just before
        keras.config.set_dtype_policy(self.precision)
        model = super()._build_hypermodel(hp)
        if not model.built and self.fit_data is not None:  # a subclassed one, which has no weights before a batch
            x = next(iter(self.fit_data))[0] if isinstance(self.fit_data, tf.data.Dataset) else self.fit_data
            model(keras.tree.map_structure(lambda each: each[:1], x))
        return model

    def run_trial(self, trial, *args, **kwargs):
        shutil.rmtree(self.folder.path / "tensorboard" / trial.trial_id, ignore_errors=True)  # of an interrupted run
        keras.utils.set_random_seed(proposals.stable_seed(self.args.seed, int(trial.trial_id)))
        self.began = time.monotonic()
        try:
            return super().run_trial(trial, *args, **kwargs)
        except (OSError, ImportError, MemoryError, tf.errors.ResourceExhaustedError, kt.errors.FatalError) as error:
            stop_for(error)  # it is not the trial's fault
        except Exception as error:
            raise kt.errors.FailedTrialError(f"{type(error).__name__}: {one_line(error)}") from error

    def on_epoch_begin(self, trial, model, epoch, logs=None):
        room = self.shared_oracle.get_trial(trial.trial_id).run_folder / "room"
        room.write_bytes(bytes(100_000 + 20 * model.count_params()))  # HDF5 crashes on a full disk: so all must fit
        room.unlink()

    def on_batch_end(self, trial, model, batch, logs=None):
        self.look()

    def on_epoch_end(self, trial, model, epoch, logs=None):
        metrics = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        metrics["seconds"], self.began = time.monotonic() - self.began, time.monotonic()
        with open(self.shared_oracle.get_trial(trial.trial_id).epochs_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        self.look()

    def save(self):
        """Writes nothing: the trials' files are the whole state."""


class RandomSearch(Tuner):
    """Draws each trial's hyperparameters at random."""

    strategy, initial_points = "random search", None


class BayesianOptimization(Tuner):
    """Tries what a Gaussian process deems best, after --initial-points random trials."""

    strategy, initial_points = "Bayesian optimization", property(lambda self: self.args.initial_points)
