"""What both tuning scripts share, in the order in which data flow: settings, data, model, training, search.

What a finished search leaves behind is made in results.py; the processes of a parallel search live in workers.py.
"""

import argparse
import contextlib
import errno
import functools
import gzip
import hashlib
import json
import math
import os
import shutil
import signal
import sys
import textwrap
import time
import zlib
from pathlib import Path

STARTED = time.monotonic()
_STDERR = os.dup(2)


def _end_on_signal(number, frame):
    # The files of a search are whole at every instant, so the process may end right here. os.write and os._exit:
    # the signal may have interrupted a print, and an exception could be taken for a failed trial.
    os.write(_STDERR, b"\nInterrupted. Completed trials are kept: the same command goes on from here.\n")
    os._exit(128 + number)


# Set before TensorFlow's import, which takes seconds in which a person may press Ctrl-C.
signal.signal(signal.SIGINT, _end_on_signal)
signal.signal(signal.SIGTERM, _end_on_signal)


@contextlib.contextmanager
def _stderr_off():
    """Sends file descriptor 2 to nowhere: TensorFlow's C++ logs to it, whatever TF_CPP_MIN_LOG_LEVEL says."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(_STDERR, 2)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as a Python exception
with _stderr_off():
    import keras
    import keras_tuner as kt
    import numpy as np
    import tensorflow as tf

import filelock

import workers

# Same seed, same result, digit for digit. On the CPU it costs nothing (18.9 against 19.3 ms a step).
tf.config.experimental.enable_op_determinism()


# --- Settings ---------------------------------------------------------------------------------------------------------

TRAIN_IMAGES, VALIDATION_IMAGES = 48_000, 12_000
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


class BadInput(Exception):
    """What the user asked for can't be done: one line on stderr, exit status 2."""


class SearchFailed(Exception):
    """Something broke while running: one line on stderr, exit status 1."""


def command(main):
    """Decorates a script's main(): whatever a user can cause ends in one line and an exit status, not in a traceback."""

    @functools.wraps(main)
    def run():
        try:
            main()
            sys.stdout.flush()
        except BadInput as error:
            status, reason = 2, error
        except (SearchFailed, workers.WorkerError) as error:
            status, reason = 1, error
        except (OSError, tf.errors.OpError, kt.errors.FatalError) as error:
            status = 1
            reason = f"{str(error).splitlines()[0]}. Completed trials are kept: the same command goes on from here."
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python's own last flush fails as well
        else:
            return
        print(f"{Path(sys.argv[0]).name}: {reason}", file=sys.stderr)
        sys.exit(status)

    return run


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise BadInput(f"{message} (--help lists the options)")


def whole_number(low, high=None):
    """An argparse type: a whole number of at least `low` and, where given, at most `high`."""

    def parse(text):
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low or high and number > high:
            span = f"from {low} to {high}" if high else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"must be a whole number {span}, not {text!r}")
        return number

    return parse


def argument_parser(description):
    """The options that both scripts have; each script may add its own before parse_args()."""
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--max-trials", type=whole_number(1), default=10, help="hyperparameter combinations to try (10)")
    add("--epochs", type=whole_number(1), default=30, help="at most so many epochs per trial (30)")
    add("--batch-size", type=whole_number(1), default=128, help="images per training step (128)")
    add("--patience", type=whole_number(1), default=3, help="end a trial after so many epochs without gain (3)")
    add("--seed", type=whole_number(1, 2**32 - 1), default=1, help="same seed, same result (1)")
    add("--precision", choices=("auto", *PRECISIONS), default="auto", help="auto: the fastest of this hardware")
    add("--train-images", type=whole_number(4, TRAIN_IMAGES), default=TRAIN_IMAGES, metavar="N",
        help="train on the first N images only and validate on N/4: a quick look")
    add("--workers", type=whole_number(1), default=1, metavar="N", help="trials at a time on this machine (1)")
    add("--results-dir", type=Path, default=Path("keras_tuner_results"), help="(keras_tuner_results)")
    add("--overwrite", action="store_true", help="begin anew instead of going on with a stored search")
    add("--tensorboard", action="store_true", help="write logs for TensorBoard")
    return parser


def fastest_precision():
    """The dtype policy with the fastest training step on this hardware, by asking the hardware.

    A CPU with native bfloat16 instructions trains this CNN 1.2 to 1.5 times faster with them; without them bfloat16 is
    emulated and slow. GPUs have tensor cores for bfloat16 from compute capability 8.0 on, for float16 from 7.0 on.
    """
    if gpus := tf.config.list_physical_devices("GPU"):
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else ()
    return "mixed_bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"


# --- Data -------------------------------------------------------------------------------------------------------------

DATA_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"  # Keras' own origin of Fashion-MNIST
DEBIAN_HOME = Path("/usr/share")  # the package dataset-fashion-mnist is laid out like a Keras cache
SHA256 = {  # of the decompressed bytes; Keras' loader checks nothing
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def read_idx(name):
    """Finds, verifies and reads one of the four files of Fashion-MNIST.

    It is looked for in Keras' cache (KERAS_HOME, else ~/.keras), then in the folder of Debian's package
    dataset-fashion-mnist; where neither has it, Keras downloads it into its cache.

    Args:
        name: a key of SHA256.

    Returns:
        A uint8 array: images of shape (n, 28, 28) with grey values 0 to 255, or labels of shape (n,) from 0 to 9.

    Raises:
        SearchFailed: the file can't be had, or its bytes are not those of Fashion-MNIST.
    """
    folder, filename = Path("datasets") / "fashion-mnist", f"{name}.gz"
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    homes = [home for home in (cache, DEBIAN_HOME) if (home / folder / filename).exists()] or [cache]
    path = homes[0] / folder / filename
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras shows the download there
            keras.utils.get_file(filename, DATA_URL + filename, cache_subdir=str(folder), cache_dir=str(homes[0]))
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise SearchFailed(
            f"{filename} could not be downloaded ({error}). Without internet, either put the four files "
            f"{', '.join(f'{each}.gz' for each in SHA256)} into {path.parent}, "
            "or install the package: apt-get install dataset-fashion-mnist"
        ) from error
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error):
        content = b""
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise SearchFailed(f"{path} is damaged or altered: delete it, and the same command downloads it afresh")
    dimensions = content[3]  # of the IDX format, see http://yann.lecun.com/exdb/mnist
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def load_train_data(train_images=TRAIN_IMAGES):
    """Loads the images to train on and those to validate on, which never overlap.

    Args:
        train_images: use only the first so many of the 48,000 training images, and a quarter as many of the 12,000.

    Returns:
        Two tuples (images, labels), images uint8 of shape (n, 28, 28), labels uint8 of shape (n,).
    """
    images, labels = read_idx("train-images-idx3-ubyte"), read_idx("train-labels-idx1-ubyte")
    train = slice(train_images)
    validation = slice(TRAIN_IMAGES, TRAIN_IMAGES + train_images * VALIDATION_IMAGES // TRAIN_IMAGES)
    return (images[train], labels[train]), (images[validation], labels[validation])


def load_test_data():
    """Loads the 10,000 test images, uint8 of shape (10000, 28, 28), and their labels, for the final model alone."""
    return read_idx("t10k-images-idx3-ubyte"), read_idx("t10k-labels-idx1-ubyte")


# --- Model ------------------------------------------------------------------------------------------------------------


def search_space():
    """The hyperparameters to tune and their ranges, a kt.HyperParameters."""
    hp = kt.HyperParameters()
    hp.Int("units", 64, 512, step=32)
    hp.Float("dropout", 0.1, 0.5, step=0.1)
    hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    hp.Choice("optimizer", ["adam", "rmsprop"])
    return hp


def build_model(hp, precision):
    """Builds and compiles the CNN.

    Args:
        hp: a kt.HyperParameters with the values of search_space().
        precision: one of PRECISIONS, the dtype policy to compute in; the weights are float32 in each.

    Returns:
        A keras.Model from raw images, shape (n, 28, 28), values 0 to 255, to ten class probabilities, shape (n, 10).
    """
    # Here and not once per search: KerasTuner clears Keras' session before each trial, and the policy with it.
    keras.config.set_dtype_policy(precision)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((28, 28)),
        layers.Reshape((28, 28, 1)),
        layers.Rescaling(1 / 255),
        layers.RandomFlip("horizontal"),
    ])
    for filters in (16, 64, 128):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        # Pooling comes first: normalisation and activation then handle a quarter of the values.
        model.add(layers.MaxPooling2D(padding="same"))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
    model.add(layers.Flatten())
    model.add(layers.Dense(hp.get("units"), activation="relu"))
    model.add(layers.Dropout(hp.get("dropout")))
    model.add(layers.Dense(10, activation="softmax", dtype="float32"))
    optimizer = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[hp.get("optimizer")]
    model.compile(optimizer(hp.get("learning_rate")), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def add_mirror_view(model, name):
    """Wraps a trained model so that it averages its probabilities for an image and for the mirror image."""
    images = keras.Input((28, 28))
    views = [model(images), model(keras.ops.flip(images, axis=2))]
    averaged = keras.Model(images, keras.layers.Average(dtype="float32")(views), name=name)
    averaged.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return averaged


# --- Training ---------------------------------------------------------------------------------------------------------

ANNEAL_EPOCHS = 8  # a trial's learning rate has by then come down to almost nothing, and the trial ends


class CNN(kt.HyperModel):
    """How KerasTuner makes and trains a trial's model; `settings` are the parsed options, after open_project()."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def build(self, hp):
        return build_model(hp, self.settings.precision)

    def fit(self, hp, model, images, labels, callbacks, **kwargs):
        """Trains one trial; see keras.Model.fit for the arguments and for what it returns."""
        epochs = min(self.settings.epochs, ANNEAL_EPOCHS)
        steps = epochs * math.ceil(len(images) / self.settings.batch_size)
        learning_rate = hp.get("learning_rate")
        model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(
            learning_rate / 10, steps - steps // 4, alpha=0.01, warmup_target=learning_rate, warmup_steps=steps // 4
        )
        return model.fit(
            images,
            labels,
            batch_size=self.settings.batch_size,
            epochs=epochs,
            validation_batch_size=1000,
            verbose=1 if sys.stdout.isatty() else 2,  # a progress bar for a person, a line an epoch for a file
            callbacks=[*callbacks, keras.callbacks.EarlyStopping("val_accuracy", patience=self.settings.patience)],
            **kwargs,
        )


# --- Search -----------------------------------------------------------------------------------------------------------


def write_json(path, content):
    """Writes a JSON file that is at every instant the old one or the new one, whole, power cuts included."""
    draft = path.with_suffix(".tmp")
    with open(draft, "w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def read_json(path):
    """Reads a JSON object; an empty one where the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_settings(settings):
    """Refuses to go on with a search that was begun with other settings; stores those of a new one.

    `--precision auto` takes up the precision that the search was begun with.
    """
    path = settings.project / "settings.json"
    stored = read_json(path)
    if settings.precision == "auto":
        settings.precision = stored.get("precision") or fastest_precision()
    names = ("epochs", "batch_size", "patience", "seed", "precision", "train_images", "initial_points")
    asked = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    asked |= {f"search space of {hp.name}": str(hp) for hp in search_space().space}
    differences = [f"{name} was {stored.get(name)}, now {asked[name]}" for name in asked if stored.get(name) != asked[name]]
    if stored and differences:
        raise BadInput(
            f"{settings.project} holds a search with other settings ({'; '.join(differences)}): "
            "--overwrite begins anew, another --results-dir keeps both"
        )
    if path.exists() and not stored:
        print(f"{path} can't be read: left out, the settings of this command hold")
    if not workers.is_worker():
        write_json(path, asked)


def open_project(settings, name):
    """Settles what this process works on: sets the project (its folder) and the precision in `settings`.

    The folder is this process' own until it ends. A worker leaves that, and the files in it, to its chief.

    Raises:
        BadInput: the folder can't be written, is in use, or holds a search with other settings.
    """
    settings.project = settings.results_dir / name
    if missing := workers.missing_variables():
        raise BadInput(f"a parallel search needs {', '.join(missing)} in the environment as well")
    if workers.is_worker():
        workers.end_with_parent()
        workers.wait_for_chief()
    else:
        holder = settings.results_dir / f"{name}.pid"
        settings.lock = filelock.FileLock(settings.results_dir / f"{name}.lock", blocking=False)
        try:
            settings.results_dir.mkdir(parents=True, exist_ok=True)
            settings.lock.acquire()
            holder.write_text(str(os.getpid()))
            if settings.overwrite and settings.project.exists():
                shutil.rmtree(settings.project)
            settings.project.mkdir(exist_ok=True)
        except filelock.Timeout:
            raise BadInput(
                f"process {holder.read_text()} is at work on {settings.project}: let it end, or take another --results-dir"
            )
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            raise BadInput(f"--results-dir {settings.results_dir}: can't be written ({error.strerror})")
    check_settings(settings)


class Stopwatch:
    """Counts the seconds worked on a search, over all its runs but not between them."""

    def __init__(self, path):
        self.path = path
        self.before = read_json(path).get("seconds", 0.0)
        self.running = False  # until a trial begins: to look at a finished search is no work on it

    def seconds(self):
        return self.before + (time.monotonic() - STARTED if self.running else 0.0)

    def save(self):
        if self.running:
            write_json(self.path, {"seconds": self.seconds()})


def duration(seconds):
    """Seconds as people say them: 0h 12m 03s."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}h {minutes % 60:02d}m {seconds:02d}s"


def describe(hp):
    """The hyperparameters of a trial in one line."""
    values = hp.values
    return (
        f"units {values['units']}, dropout {values['dropout']:.1f}, "
        f"learning rate {values['learning_rate']:.3g}, {values['optimizer']}"
    )


def learning_curves(trial):
    """What was measured in each epoch of a trial: a dictionary from the metric's name to a list of floats."""
    return {name: [float(each.mean()) for each in trial.metrics.get_history(name)] for name in trial.metrics.metrics}


def seconds_trained(trial):
    """Seconds that a trial has spent in fit, its validation included."""
    return sum(learning_curves(trial).get("seconds", ()))


def trial_seed(seed, trial_id):
    """A seed for each trial of a search, the same whatever ran before it in the same process."""
    return int(np.random.SeedSequence([seed, int(trial_id)]).generate_state(1)[0])


class ResumableOracle(kt.Oracle):
    """Makes an oracle of KerasTuner resumable and lets it report: inherit from this class first, then from the oracle.

    What a trial tries depends on the seed, the trial's number and the results before it, never on what else happened
    in this process. So the trials' own files, written by KerasTuner, are the whole state of a search.
    """

    stopwatch = None
    all_handed_out = False

    def populate_space(self, trial_id):
        # The seeds that KerasTuner itself would count up to, one for each hyperparameter of each trial.
        self._seed_state = self.seed + int(trial_id) * len(self.hyperparameters.space)
        return super().populate_space(trial_id)

    def is_random(self, trial):
        """Whether the trial's hyperparameters were drawn at random, rather than proposed by a model of the results."""
        first_seed = self.seed + int(trial.trial_id) * len(self.hyperparameters.space)
        return trial.hyperparameters.values == {
            hp.name: hp.random_sample(first_seed + i) for i, hp in enumerate(self.hyperparameters.space)
        }

    def restore(self, project):
        """Takes up a stored search from its trials' files; what is damaged is named and will be trained again.

        Args:
            project: the folder of the search, a Path.
        """
        self.project = project
        self.verbose = 0  # KerasTuner shows the trials its own way
        self.stopwatch = Stopwatch(project / "elapsed.json")
        ended = {}
        for path in project.glob("trial_*/trial.json"):
            try:
                trial = kt.engine.trial.Trial.load(str(path))
                number = int(trial.trial_id)
            except Exception:  # whatever a damaged file makes of its reader
                print(f"{path} is damaged: left out, its trial is trained again")
                continue
            if trial.status in ("COMPLETED", "FAILED"):
                ended[number] = trial
        for number in range(max(ended, default=-1) + 1):
            trial = ended.get(number)
            if trial is None:
                trial_id = f"{number:0{len(str(self.max_trials))}d}"
                space = self.get_space()
                space.values = self.populate_space(trial_id)["values"]
                trial = kt.engine.trial.Trial(space, trial_id, status="INVALID")
                self._retry_queue.insert(0, trial_id)  # KerasTuner takes from the end
            self.trials[trial.trial_id] = trial
            self._record_values(trial)
            if trial.status != "INVALID":
                self.end_order.append(trial.trial_id)

    @kt.synchronized
    def create_trial(self, tuner_id):
        trial = super().create_trial(tuner_id)
        if trial.status == "RUNNING":
            trial.metrics = type(trial.metrics)()  # a worker that was killed may have left some
            self.stopwatch.running = True
            print(f"\nTrial {int(trial.trial_id) + 1} of {self.max_trials}: {describe(trial.hyperparameters)}", flush=True)
        self.all_handed_out = trial.status == "STOPPED"
        return trial

    @kt.synchronized
    def update_trial(self, trial_id, metrics, step=0):
        trial = super().update_trial(trial_id, metrics, step)
        self.stopwatch.save()
        if workers.is_chief():  # else Keras shows each epoch
            print(
                f"Trial {int(trial_id) + 1}, epoch {step + 1}: val_accuracy {metrics['val_accuracy']:.4f}, "
                f"{metrics['seconds']:.1f} s",
                flush=True,
            )
        return trial

    @kt.synchronized
    def end_trial(self, trial):
        # On their way from a worker, floats are rounded to 32 bits and messages are lost.
        trial.hyperparameters = self.trials[trial.trial_id].hyperparameters
        folder = self.project / f"trial_{trial.trial_id}"
        if trial.status != "COMPLETED":
            trial.message = (folder / "failure.txt").read_text()
        super().end_trial(trial)
        with open(folder / "trial.json") as file:
            os.fsync(file.fileno())
        self.report_progress(self.trials[trial.trial_id])

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
        ended = [each for each in self.trials.values() if each.status in ("COMPLETED", "FAILED")]
        left = self.max_trials - len(ended)
        seconds = sum(map(seconds_trained, ended)) / len(ended) * left / max(1, len(self.ongoing_trials))
        if left:
            print(f"Left: {left} trials, about {duration(seconds)}", flush=True)

    def save(self):
        """Writes nothing: the trials' own files are the whole state."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_storage_error(error):
    """Whether an exception is about files or the terminal; TensorFlow reports these as errors of its own."""
    return isinstance(error, OSError) or any(os.strerror(code) in str(error) for code in (*NO_ROOM, errno.EROFS, errno.EIO))


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
        if self.settings.tensorboard:  # KerasTuner gives each trial a folder and adds its hyperparameters
            kwargs["callbacks"] = [keras.callbacks.TensorBoard(self.settings.project / "tensorboard")]
        oracle = self.oracle
        if workers.is_worker():
            super().search(*args, **kwargs)
            sys.exit()  # the rest is its chief's
        elif self.settings.workers == 1 and not workers.is_chief():
            super().search(*args, **kwargs)
        elif len(oracle.end_order) < self.settings.max_trials:
            gpus = len(tf.config.list_physical_devices("GPU"))
            workers.run_chief(oracle, self.settings.workers, gpus, super().search)

    def run_trial(self, trial, *args, **kwargs):
        keras.utils.set_random_seed(trial_seed(self.settings.seed, trial.trial_id))
        try:
            return super().run_trial(trial, *args, **kwargs)
        except Exception as error:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
            if is_storage_error(error):  # not the trial's fault: end the search, keep the trial for the next run
                raise kt.errors.FatalRuntimeError(reason) from error
            Path(self.get_trial_dir(trial.trial_id), "failure.txt").write_text(reason)
            raise

    def pre_create_trial(self):
        workers.wait_for_chief()

    def on_epoch_begin(self, trial, model, epoch, logs=None):
        self.epoch_started = time.monotonic()

    def on_epoch_end(self, trial, model, epoch, logs=None):
        if not np.isfinite(logs["loss"]):
            raise kt.errors.FailedTrialError(f"the loss was {logs['loss']} in epoch {epoch + 1}")
        workers.wait_for_chief()
        # KerasTuner itself would keep the best epoch only.
        self.oracle.update_trial(trial.trial_id, logs | {"seconds": time.monotonic() - self.epoch_started}, step=epoch)

    def save(self):
        """Writes nothing: the trials' own files are the whole state."""
