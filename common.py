"""The problem to tune: Fashion-MNIST, a CNN with four hyperparameters, and how one trial of it is trained."""

import gzip
import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import urllib.request
import zlib
from pathlib import Path

import keras
import keras_tuner as kt
import numpy as np
import tensorflow as tf

TRAIN_IMAGES, VALIDATION_IMAGES = 48_000, 12_000
MIN_DELTA = 0.001  # smaller gains are ignored as noise: an accuracy's standard error on 12,000 images is 0.0024
CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def load_train_data(train_images=TRAIN_IMAGES):
    """The first N of 48,000 images to train on, and N / 4 of 12,000 others to validate on: two results of load()."""
    images, labels = load("train")
    validation = slice(TRAIN_IMAGES, TRAIN_IMAGES + train_images * VALIDATION_IMAGES // TRAIN_IMAGES)
    return (images[:train_images], labels[:train_images]), (images[validation], labels[validation])


def load_test_data():
    """Loads the 10,000 test images and their labels, for the final model alone."""
    return load("t10k")


def load(part):
    """Images, uint8 of shape (n, 28, 28), and labels, one-hot, float32 of shape (n, 10), of "train" or "t10k"."""
    return read_idx(f"{part}-images-idx3-ubyte"), np.eye(10, dtype="float32")[read_idx(f"{part}-labels-idx1-ubyte")]


def dataset(images, labels, batch_size, shuffle=False):
    """Batches of images and labels, anew for each epoch, as a tf.data.Dataset; TensorFlow's random seed shuffles them.

    Autotuning is off, unlike in the datasets that Keras makes of arrays: after some epochs, Keras would wait for its
    thread for several seconds (benchmarks/pause.py).
    """
    images, labels = tf.constant(images), tf.constant(labels)
    indices = tf.data.Dataset.range(len(images))
    if shuffle:
        indices = indices.shuffle(len(images))
    batches = indices.batch(batch_size).map(lambda batch: (tf.gather(images, batch), tf.gather(labels, batch)))
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(1).with_options(options)


class CNN(kt.HyperModel):
    """A CNN from raw images, shape (n, 28, 28), values 0 to 255, to class probabilities, shape (n, 10)."""

    def build(self, hp):
        units = hp.Int("units", 64, 512, step=32)
        dropout = hp.Float("dropout", 0.1, 0.5, step=0.1)
        learning_rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")  # the initial one: it falls, see fit()
        optimizer = hp.Choice("optimizer", ["adam", "rmsprop"])

        layers = keras.layers
        model = keras.Sequential([
            keras.Input((28, 28)), layers.Reshape((28, 28, 1)), layers.Rescaling(1 / 255),
            layers.RandomFlip("horizontal"),  # in training only
            # Pooled before the activation: the same values for a quarter of its work. Convolutions on large images cost
            # most of the time, so the first two are narrow; the second has no padding, so that 14 become 12, 6, 3.
            layers.Conv2D(16, 3, padding="same"), layers.MaxPooling2D(), layers.ReLU(),
            layers.Conv2D(32, 3), layers.MaxPooling2D(), layers.ReLU(),
            layers.Conv2D(96, 3, padding="same", use_bias=False), layers.MaxPooling2D(),
            layers.BatchNormalization(), layers.ReLU(),  # here only: in all blocks, a step takes a fifth longer
            layers.Flatten(), layers.Dense(units, activation="relu"), layers.Dropout(dropout),
            layers.Dense(10, activation="softmax", dtype="float32"),
        ])  # fmt: skip
        optimizer_class = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[optimizer]
        model.compile(
            optimizer_class(learning_rate, use_ema=True, ema_momentum=0.99),  # an average is validated and saved
            keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
            metrics=["accuracy"],
            steps_per_execution=25,  # TensorFlow runs 25 steps at a time without going back to Python
            jit_compile=False,  # on a GPU, XLA would compile for 12 s in each trial, more than it saves
        )
        return model

    def fit(self, hp, model, images, labels, validation_data, batch_size, callbacks, **kwargs):
        """Trains one trial with the arguments of tuner.search(); returns what keras.Model.fit returns."""
        average = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)  # before KerasTuner's callback, which saves them
        fall = keras.callbacks.ReduceLROnPlateau("val_accuracy", factor=0.3, patience=1, min_delta=MIN_DELTA)
        callbacks = [average, fall, *callbacks]
        train = dataset(images, labels, batch_size, shuffle=True)
        validation = dataset(*validation_data, batch_size=1000)
        return model.fit(train, validation_data=validation, callbacks=callbacks, shuffle=False, **kwargs)


def early_stopping(patience):
    """Ends a trial after `patience` epochs without a gain of MIN_DELTA; KerasTuner keeps the best epoch's weights."""
    return keras.callbacks.EarlyStopping("val_accuracy", patience=patience, min_delta=MIN_DELTA)


FOLDER = Path("datasets") / "fashion-mnist"  # in Keras' cache, and in /usr/share where Debian's package is installed
CACHE = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras")) / FOLDER
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"  # Keras' own origin
SHA256 = {  # of the decompressed bytes; Keras' own loader checks nothing, and has no time-out
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def read_idx(name):
    """Finds, verifies and reads a file, a key of SHA256: a uint8 array of shape (n, 28, 28), or (n,) for labels."""
    paths = [folder / f"{name}.gz" for folder in (CACHE, Path("/usr/share") / FOLDER)]
    if not any(path.exists() for path in paths):
        fetch_data()
    content = decompress(next(path for path in paths if path.exists()), name)
    header, shape = (16, (-1, 28, 28)) if "images" in name else (8, -1)  # bytes, of the IDX format
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def decompress(path, name):
    """The bytes of one of the four files; raises OSError where they are not those of Fashion-MNIST."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error):
        content = b""
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise OSError(f"{path} is damaged or altered: delete it, and the same command fetches it again")
    return content


DEBIAN = f"""# fetches Debian's package as any user, with package lists of its own, and puts the files into the cache
mkdir -p lists/partial cache/archives/partial
set -- -o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o "Dir::State::Lists=$PWD/lists" -o "Dir::Cache=$PWD/cache"
apt-get "$@" update
apt-get "$@" download dataset-fashion-mnist
dpkg-deb -x *.deb .
mv usr/share/{FOLDER}/* ..
"""


def fetch_data():
    """Puts the four files into Keras' cache: from Keras' own origin, else from Debian's package."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as draft:  # half a file is never found under its name
        print(f"Fetching Fashion-MNIST from {URL}", file=sys.stderr)
        try:
            for name in SHA256:
                path = Path(draft) / f"{name}.gz"
                with urllib.request.urlopen(f"{URL}{name}.gz", timeout=5) as response:
                    path.write_bytes(response.read())
                decompress(path, name)
                path.replace(CACHE / path.name)
        except (OSError, http.client.HTTPException) as reason:
            print(f"That failed ({reason}): fetching Debian's package dataset-fashion-mnist", file=sys.stderr)
            try:
                subprocess.run(["sh", "-ec", DEBIAN], cwd=draft, check=True, capture_output=True, timeout=240)
            except (OSError, subprocess.SubprocessError) as error:
                ways = f"put {', '.join(f'{name}.gz' for name in SHA256)} into {CACHE}, or install Debian's package"
                raise OSError(f"Fashion-MNIST can't be fetched: {ways} ({reason}; {type(error).__name__})") from error
