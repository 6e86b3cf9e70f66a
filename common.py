"""What both tuning scripts share, in the order in which data flow: settings, data, model, training.

It goes on in storage.py (a search's folder), search.py (how it is run and resumed), results.py (what it leaves behind).
"""

import argparse
import contextlib
import errno
import functools
import gzip
import hashlib
import math
import os
import signal
import sys
import tempfile
import time
import zlib
from pathlib import Path

STARTED = time.monotonic()
GO_ON = "Completed trials are kept: the same command goes on from here" + (
    ", without --overwrite, which begins anew." if "--overwrite" in sys.argv else "."
)
for _name in ("stdout", "stderr"):
    if getattr(sys, _name) is None:  # closed by whoever started this process
        setattr(sys, _name, open(os.devnull, "w"))
_STDERR = os.dup(2)


def _end_on_signal(number, frame):
    # A search can go on after its end at any instant, so the process may end right here. os.write and os._exit: the
    # signal may have interrupted a print, and an exception could be taken for a failed trial.
    with contextlib.suppress(OSError):  # Ctrl-C ends the reader of a pipe as well
        os.write(_STDERR, f"\nInterrupted. {GO_ON}\n".encode())
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


os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as a Python exception
with _stderr_off():
    import keras
    import keras_tuner as kt
    import numpy as np
    import tensorflow as tf

import workers

tf.get_logger().setLevel("ERROR")  # it warns of a graph for each trial, which is what a search needs

# Same seed, same result, digit for digit. On the CPU it costs nothing (18.9 against 19.3 ms a step).
tf.config.experimental.enable_op_determinism()

for gpu in tf.config.list_physical_devices("GPU"):  # several processes may share it
    tf.config.experimental.set_memory_growth(gpu, True)

# Summing gradients over devices registers a function with TensorFlow for good, and with it the graph of each training:
# 17 MB a trial. One device has nothing to sum; Keras has no public way to leave it out.
keras.optimizers.Optimizer._all_reduce_sum_gradients = lambda self, grads_and_vars: grads_and_vars


# --- Settings ---------------------------------------------------------------------------------------------------------

TRAIN_IMAGES, VALIDATION_IMAGES = 48_000, 12_000
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


class BadInput(Exception):
    """What the user asked for can't be done: one line on stderr, exit status 2."""


class SearchFailed(Exception):
    """Something broke while running: one line on stderr, exit status 1."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_storage_error(error):
    """Whether an exception is about files or the terminal; TensorFlow has errors of its own for these."""
    reasons = [os.strerror(code) for code in (*NO_ROOM, errno.EROFS, errno.EIO)]
    return isinstance(error, OSError) or any(reason in str(error) for reason in reasons)


def command(main):
    """Decorates a script's main(): what a user can cause ends in one line and an exit status, never in a traceback."""

    @functools.wraps(main)
    def run():
        sys.stdout.reconfigure(line_buffering=True)  # so that no line is lost, however the process ends
        try:
            main()
        except BadInput as error:
            status, reason = 2, error
        except (SearchFailed, workers.WorkerError) as error:
            status, reason = 1, error
        except Exception as error:
            if not (is_storage_error(error) or isinstance(error, (tf.errors.OpError, kt.errors.FatalError))):
                raise
            status, reason = 1, str(error).partition("\n")[0] + f". {GO_ON}"
        else:
            return
        with contextlib.suppress(OSError):  # the reader of a pipe may be gone
            print(f"{Path(sys.argv[0]).name}: {reason}", file=sys.stderr, flush=True)
        os._exit(status)  # on a full disk or a closed pipe, closing files in good order would fail again

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


def folder(text):
    """An argparse type: the Path of a folder; an empty text, as of an unset variable, is none."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def argument_parser(description):
    """The options that both scripts have; each script may add its own before parse_args()."""
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def number(option, default, text, low=1, high=None):
        text += " (%(default)s)"
        parser.add_argument(option, type=whole_number(low, high), default=default, metavar="N", help=text)

    number("--max-trials", 10, "hyperparameter combinations to try")
    number("--epochs", 30, f"at most so many; a trial takes {TRIAL_EPOCHS}, the best model {FINAL_EPOCHS}")
    number("--batch-size", 128, "images per training step", high=TRAIN_IMAGES)
    number("--patience", 3, f"end a trial after so many of its {TRIAL_EPOCHS} epochs without gain; 3 or more never do")
    number("--seed", 1, "same seed, same result", high=2**32 - 1)
    number("--train-images", TRAIN_IMAGES, "only the first N, and N/4 to validate: a quick look", 4, TRAIN_IMAGES)
    number("--workers", 1, "trials at a time on this machine")
    add = parser.add_argument
    add("--precision", choices=("auto", *PRECISIONS), default="auto", help="auto: the fastest on this hardware")
    add("--results-dir", type=folder, default="keras_tuner_results", metavar="DIR", help="of searches (%(default)s)")
    add("--overwrite", action="store_true", help="begin anew instead of going on with the stored search")
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
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / folder
    path = next((path for path in (cache / filename, DEBIAN_HOME / folder / filename) if path.exists()), None)
    if path is None:
        path = cache / filename
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Keras shows the download on stdout, and half a file stays where it was killed: not in the cache.
            with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(dir=cache) as draft:
                os.replace(keras.utils.get_file(filename, DATA_URL + filename, cache_dir=draft), path)
        except Exception as error:  # Keras raises a bare Exception when a download fails
            raise SearchFailed(
                f"{filename} could not be downloaded ({error}). Without internet, either put the four files "
                f"{', '.join(f'{each}.gz' for each in SHA256)} into {cache}, "
                "or install the package: apt-get install dataset-fashion-mnist"
            ) from error
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error):
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


# How each is shown; a float step adds up to 0.30000000000000004.
FORMATS = {"units": "d", "dropout": ".1f", "learning_rate": ".3g", "optimizer": "s"}


def formatted(values):
    """The text of each hyperparameter's value, a dictionary by their names; `values` may hold more than these."""
    return {name: format(values[name], form) for name, form in FORMATS.items()}


def build_network(hp):
    """Builds the CNN.

    The figures are accuracies on the validation images, see benchmarks/tricks.py.

    Args:
        hp: a kt.HyperParameters with the values of search_space().

    Returns:
        A keras.Sequential from raw images, shape (n, 28, 28), values 0 to 255, to class probabilities, shape (n, 10).
    """
    layers = keras.layers
    network = keras.Sequential([
        keras.Input((28, 28)),
        layers.Reshape((28, 28, 1)),
        layers.Rescaling(1 / 255),
        layers.RandomFlip("horizontal"),  # 0.9286 instead of 0.9219
    ])
    for filters in (16, 32, 96):  # 16, 48, 96: 0.9308, in 1.33 times the time
        network.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        # Pooled first, an epoch takes half the time: all that follows handles a quarter of the values.
        network.add(layers.MaxPooling2D(padding="same"))
        # 0.9286 instead of 0.9273, the best model 0.9328 instead of 0.9302. The momentum is for quick looks: few steps.
        network.add(layers.BatchNormalization(momentum=0.9))
        network.add(layers.ReLU())
    network.add(layers.Flatten())
    network.add(layers.Dense(hp.get("units"), activation="relu"))
    network.add(layers.Dropout(hp.get("dropout")))
    network.add(layers.Dense(10, activation="softmax", dtype="float32"))
    return network


def build_ensemble(hp, networks):
    """Builds several CNNs side by side, each to be trained for itself, on the same batches.

    Four take 0.74 of the time that they need one after the other (benchmarks/tricks.py): one uses the cores while
    another can't.

    Args:
        hp: a kt.HyperParameters with the values of search_space().
        networks: how many.

    Returns:
        A keras.Model from raw images, shape (n, 28, 28), values 0 to 255, to each network's ten class probabilities,
        shape (n, networks, 10).
    """
    images = keras.Input((28, 28))
    return keras.Model(images, keras.ops.stack([build_network(hp)(images) for _ in range(networks)], axis=1))


def compiled(model, hp):
    """Compiles a model of build_network() or build_ensemble() for training with the optimizer of `hp`; returns it."""
    optimizer = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[hp.get("optimizer")]
    model.compile(optimizer(hp.get("learning_rate")), "sparse_categorical_crossentropy", metrics=["accuracy"])
    # Else the first step would make these variables, and TensorFlow trace it twice: 0.7 s a trial.
    model.optimizer.build(model.trainable_variables)
    shape = (1, *model.output_shape[1:])
    model.compute_metrics(None, np.zeros(shape[:-1]), np.zeros(shape))
    return model


def average(ensemble, name):
    """Makes one classifier of an ensemble: the mean of its networks' probabilities for an image and its mirror image.

    The mirror image raises the validation accuracy of one network from 0.9286 to 0.9328 (benchmarks/tricks.py).

    Args:
        ensemble: a trained model of build_ensemble().
        name: of the model to make.

    Returns:
        A compiled keras.Model from raw images, shape (n, 28, 28), to ten class probabilities, shape (n, 10).
    """
    images = keras.Input((28, 28))
    both = ensemble(keras.ops.concatenate([images, keras.ops.flip(images, axis=2)]))
    probabilities = keras.ops.mean(keras.ops.reshape(both, (2, -1, *both.shape[1:])), axis=(0, 2))
    model = keras.Model(images, probabilities, name=name)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


# --- Training ---------------------------------------------------------------------------------------------------------

# The figures are accuracies on the validation images, see benchmarks/tricks.py.
TRIAL_EPOCHS = 4  # enough to tell good hyperparameters from bad ones
FINAL_EPOCHS = 12  # one network 0.9328, with 8 epochs 0.9305
FINAL_NETWORKS = 4  # 0.9391, one alone 0.9328


class CNN(kt.HyperModel):
    """How KerasTuner makes and trains a trial's model; `settings` are the parsed options, after open_project()."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def build(self, hp):
        # Here and not once per search: KerasTuner clears Keras' session before each trial, and the policy with it.
        keras.config.set_dtype_policy(self.settings.precision)
        return compiled(build_network(hp), hp)

    def fit(self, hp, model, *data, callbacks, **kwargs):
        """Trains one trial; see keras.Model.fit for the arguments and for what it returns."""
        # No checkpoints, which KerasTuner lets nobody leave out: the best model is trained anew.
        unread = kt.src.engine.tuner_utils.SaveBestEpoch
        callbacks = [callback for callback in callbacks if not isinstance(callback, unread)]
        callbacks.append(keras.callbacks.EarlyStopping("val_accuracy", patience=self.settings.patience))
        epochs = min(self.settings.epochs, TRIAL_EPOCHS)
        return self.train(hp, model, *data, epochs=epochs, callbacks=callbacks, **kwargs)

    def train(self, hp, model, images, labels, epochs, **kwargs):
        """Trains with a learning rate that warms up to the trial's own and is then annealed to almost nothing.

        A trial with a learning rate of 0.01 gets 0.9219; without warming up, 0.9167 (benchmarks/tricks.py).
        """
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
            validation_batch_size=1000,  # 0.67 s an epoch instead of 0.87 s with batches of 128
            verbose=1 if sys.stdout.isatty() else 2,  # a progress bar for a person, a line an epoch for a file
            **kwargs,
        )

    def train_final(self, hp, images, labels, validation_data, **kwargs):
        """Trains the networks of the best model, for longer than a trial and without early stopping.

        Returns:
            A model of build_ensemble() that computes in float32, on any machine, and its learning curves: the mean of
            its networks, a dictionary from the metric's name to a list of floats, one an epoch.
        """

        def for_each_network(labels):  # shape (n, networks)
            return np.repeat(labels[:, None], FINAL_NETWORKS, axis=1)

        keras.config.set_dtype_policy(self.settings.precision)
        # The loss is the networks' mean, so each one's gradient is a quarter of its own: Adam and RMSprop don't care.
        trained = compiled(build_ensemble(hp, FINAL_NETWORKS), hp)
        history = self.train(
            hp,
            trained,
            images,
            for_each_network(labels),
            epochs=min(self.settings.epochs, FINAL_EPOCHS),
            validation_data=(validation_data[0], for_each_network(validation_data[1])),
            **kwargs,
        )
        keras.config.set_dtype_policy("float32")
        ensemble = build_ensemble(hp, FINAL_NETWORKS)
        ensemble.set_weights(trained.get_weights())
        return ensemble, history.history
