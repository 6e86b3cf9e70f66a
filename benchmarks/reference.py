"""The straightforward way, to measure against: a plain CNN, random search as in KerasTuner's guide, float32.

    python benchmarks/reference.py --results-dir DIR [--max-trials 10] [--epochs 30] [--seed 1]

Keras' and KerasTuner's defaults wherever there is one, but for two settings of common.py: TensorFlow is deterministic,
and memory does not grow from trial to trial. Ends with one line of JSON; benchmarks/speed.py runs it.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import common  # first: it sets up TensorFlow before anything else imports it

import keras
import keras_tuner as kt


def build_model(hp):
    model = keras.Sequential([
        keras.Input((28, 28, 1)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(hp.get("units"), activation="relu"),
        keras.layers.Dropout(hp.get("dropout")),
        keras.layers.Dense(10, activation="softmax"),
    ])
    optimizer = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[hp.get("optimizer")]
    model.compile(optimizer(hp.get("learning_rate")), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class EpochTimes(keras.callbacks.Callback):
    """The seconds of each epoch, validation included, one list for each trial."""

    trials = []  # of the class: KerasTuner gives each trial a copy of its callbacks

    def on_train_begin(self, logs=None):
        self.trials.append([])

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.trials[-1].append(time.monotonic() - self.started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", required=True)
    parser.add_argument("--max-trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    settings = parser.parse_args()

    keras.utils.set_random_seed(settings.seed)
    (images, labels), validation = common.load_train_data()
    tuner = kt.RandomSearch(
        build_model,
        objective="val_accuracy",
        max_trials=settings.max_trials,
        seed=settings.seed,
        hyperparameters=common.search_space(),
        directory=settings.results_dir,
        project_name="reference",
    )
    tuner.search(
        images,
        labels,
        batch_size=128,
        epochs=settings.epochs,
        validation_data=validation,
        callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=3), EpochTimes()],
        verbose=2,
    )
    test_accuracy = tuner.get_best_models()[0].evaluate(*common.load_test_data(), verbose=0)[1]
    val_accuracy = tuner.oracle.get_best_trials()[0].score
    print(json.dumps({"epochs": EpochTimes.trials, "val_accuracy": val_accuracy, "test_accuracy": test_accuracy}))


if __name__ == "__main__":
    main()
