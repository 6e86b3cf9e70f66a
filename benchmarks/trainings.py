"""Trainings of one fixed set of hyperparameters, for the benchmarks that compare ways to train."""

import argparse
import contextlib
import functools
import statistics
import sys
import time

from measuring import ROOT, Rows, add_store, machine, spread, table

sys.path.insert(0, str(ROOT))
import tuning  # before what imports TensorFlow: it sets it up

import keras
import keras_tuner as kt

import common

HYPERPARAMETERS = {"units": 256, "dropout": 0.3, "learning_rate": 2e-3, "optimizer": "adam"}
SEEDS = (1, 2, 3)
EPOCHS, PATIENCE, BATCH_SIZE = 30, 3, 128  # the defaults of both scripts

load_data = functools.cache(common.load_train_data)


class EpochTimes(keras.callbacks.Callback):
    """The seconds of each epoch, validation included, one list for each training."""

    trainings = []  # of the class: KerasTuner gives each trial a copy of its callbacks

    def on_train_begin(self, logs=None):
        self.trainings.append([])

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.trainings[-1].append(time.monotonic() - self.started)


def build(seed, precision=None, hyperparameters=HYPERPARAMETERS):
    """The model of a trial: common.py's CNN, after setting the seed; returns the hypermodel and hp as well."""
    keras.backend.clear_session()
    keras.config.set_dtype_policy(precision or tuning.environment.fastest_precision())
    keras.utils.set_random_seed(seed)
    hp = kt.HyperParameters()
    hp.values = dict(hyperparameters)
    cnn = common.CNN()
    return cnn, hp, cnn.build(hp)


def train(seed, precision=None, hyperparameters=HYPERPARAMETERS, epochs=None, callbacks=()):
    """Trains as a trial of the default search does.

    Returns:
        The model, and a dictionary of lists: what was measured in each epoch, the seconds as well.
    """
    cnn, hp, model = build(seed, precision, hyperparameters)
    (images, labels), validation = load_data()
    with contextlib.redirect_stdout(sys.stderr):  # the result alone goes to stdout
        history = cnn.fit(
            hp, model, images, labels, validation_data=validation, batch_size=BATCH_SIZE, epochs=epochs or EPOCHS,
            callbacks=[common.early_stopping(PATIENCE), EpochTimes(), *callbacks], verbose=2,
        )
    return model, history.history | {"seconds": EpochTimes.trainings[-1]}


def seconds_per_epoch(seconds):
    """The median epoch of a training, without the first, in which TensorFlow traces it."""
    return statistics.median(seconds[1:] or seconds)


def this_machine():
    """One line on the hardware and the versions of this process."""
    return machine(tuning.environment.hardware(), tuning.environment.versions())


def compare(description, names, measure, time_only=(), seeds=SEEDS):
    """Measures each variant with each seed, and prints a Markdown table.

    Args:
        description: of the script; it gets the option --store.
        names: of the variants.
        measure: a function of `name` and `seed` that trains and returns what train() does.
        time_only: the names of variants whose accuracy is not shown.
        seeds: of the trainings.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_store(parser)
    rows = Rows(parser.parse_args().store)

    def result(name, seed):
        _, curves = measure(name, seed)
        return {
            "val_accuracy": max(curves["val_accuracy"]),
            "epochs": len(curves["seconds"]),
            "seconds": seconds_per_epoch(curves["seconds"]),
        }

    # Seed by seed, so that all variants share what else the machine does.
    measured = [rows.get(result, name=name, seed=seed) for seed in seeds for name in names]
    lines, forms = [], {"val_accuracy": ".4f", "epochs": ".1f", "seconds": ".2f"}
    for name in names:
        mine = [row for row in measured if row["name"] == name]
        cells = [spread([row[key] for row in mine], form) for key, form in forms.items()]
        lines.append([name, *(["", "", cells[-1]] if name in time_only else cells)])
    print(f"{this_machine()}\n\n{HYPERPARAMETERS}, mean ± standard deviation of {len(seeds)} seeds\n")
    print(table(["", "best validation accuracy", "epochs", "seconds per epoch"], lines))
