"""Trainings of common.py's network with fixed hyperparameters, as a trial of the default search trains it."""

import sys
import time

from measuring import ROOT

sys.path.insert(0, str(ROOT))
from tuning import environment  # before what imports TensorFlow: it sets it up

import keras
import keras_tuner as kt

import common

HYPERPARAMETERS = {"units": 256, "dropout": 0.3, "learning_rate": 2e-3, "optimizer": "adam"}
EPOCHS, PATIENCE, BATCH_SIZE = 30, 3, 128  # the defaults of both scripts


class EpochTimes(keras.callbacks.Callback):
    """The seconds of each epoch, from the end of the one before it."""

    def on_train_begin(self, logs=None):
        self.seconds, self.last = [], time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.monotonic() - self.last)
        self.last = time.monotonic()


def build(seed, hyperparameters=HYPERPARAMETERS, precision=None):
    """The model of a trial, after setting the seed; returns the hypermodel and hp as well."""
    keras.backend.clear_session()
    keras.config.set_dtype_policy(precision or environment.fastest_precision())
    keras.utils.set_random_seed(seed)
    hp = kt.HyperParameters()
    hp.values = dict(hyperparameters)
    cnn = common.CNN()
    return cnn, hp, cnn.build(hp)


def train(seed, hyperparameters=HYPERPARAMETERS, precision=None):
    """Trains; returns the validation accuracies and the seconds of all epochs, two lists."""
    cnn, hp, model = build(seed, hyperparameters, precision)
    (images, labels), validation = common.load_train_data()
    times = EpochTimes()
    callbacks = [common.early_stopping(PATIENCE), times]
    options = {"validation_data": validation, "batch_size": BATCH_SIZE, "epochs": EPOCHS, "callbacks": callbacks}
    history = cnn.fit(hp, model, images, labels, verbose=0, **options)
    return history.history["val_accuracy"], times.seconds
