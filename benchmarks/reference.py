"""What a KerasTuner user would write, to measure against: random search for a plain CNN on Fashion-MNIST.

    python benchmarks/reference.py --results-dir DIR [--max-trials 10] [--epochs 30] [--seed 1]

Arrays, float32, and the defaults of TensorFlow, Keras and KerasTuner wherever there is one. It uses nothing of this
project, only the same search space. Prints an epoch a line, with its seconds, and at the end one line of JSON.
Keras fetches the data; without its server, `python -c "import common; common.fetch_data()"` puts them where it looks.
"""

import argparse
import json
import time

import keras
import keras_tuner as kt


def load_data():
    """The training, validation and test images and their labels; the last 12,000 training images validate."""
    (images, labels), (test_images, test_labels) = keras.datasets.fashion_mnist.load_data()
    images, test_images = (each[..., None].astype("float32") / 255 for each in (images, test_images))
    return (images[:-12_000], labels[:-12_000]), (images[-12_000:], labels[-12_000:]), (test_images, test_labels)


def build_model(hp):
    units = hp.Int("units", 64, 512, step=32)
    dropout = hp.Float("dropout", 0.1, 0.5, step=0.1)
    learning_rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    optimizer = hp.Choice("optimizer", ["adam", "rmsprop"])
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    optimizer_class = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[optimizer]
    model.compile(optimizer_class(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Times(keras.callbacks.Callback):
    """When each trial began, and the seconds of each of its epochs, validation included."""

    began, epochs = [], []  # of the class: KerasTuner gives each trial a copy of its callbacks

    def on_train_begin(self, logs=None):
        self.last = time.monotonic()
        self.began.append(self.last)
        self.epochs.append([])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs[-1].append(time.monotonic() - self.last)
        self.last = time.monotonic()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", required=True)
    parser.add_argument("--max-trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    settings = parser.parse_args()
    train, validation, test = load_data()
    options = {"directory": settings.results_dir, "max_trials": settings.max_trials, "seed": settings.seed}
    tuner = kt.RandomSearch(build_model, objective="val_accuracy", **options)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=3)
    options = {"epochs": settings.epochs, "batch_size": 128, "callbacks": [stop, Times()]}
    tuner.search(*train, validation_data=validation, verbose=2, **options)
    ends = [*Times.began[1:], time.monotonic()]
    result = {
        "epochs": Times.epochs,
        "starts": Times.began,
        "seconds_of_trials": [end - began for began, end in zip(Times.began, ends)],
        "val_accuracy": tuner.oracle.get_best_trials()[0].score,
        "test_accuracy": tuner.get_best_models()[0].evaluate(*test, verbose=0)[1],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
