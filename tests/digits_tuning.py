"""The engine on another problem: scikit-learn's digits, three other hyperparameters, and a loss to minimise."""

import sys

import tuning  # isort: skip (first: it sets up TensorFlow)

import keras
import keras_tuner as kt
from sklearn.datasets import load_digits


class Perceptron(kt.HyperModel):
    def build(self, hp):
        model = keras.Sequential([keras.Input((8, 8)), keras.layers.Rescaling(1 / 16), keras.layers.Flatten()])
        for _ in range(hp.Int("hidden_layers", 1, 3)):
            model.add(keras.layers.Dense(32, hp.Choice("activation", ["relu", "tanh"])))
        model.add(keras.layers.Dense(10, "softmax", dtype="float32"))
        optimizer = keras.optimizers.SGD(hp.Float("rate", 0.01, 1, sampling="log"), momentum=0.9)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model


def main(options, project):
    digits = load_digits()
    train, validation, test = (
        (digits.images[part], digits.target[part]) for part in (slice(1000), slice(1000, 1400), slice(1400, None))
    )
    arguments = {"objective": kt.Objective("val_loss", "min"), "max_trials": options.max_trials, "seed": options.seed}
    if options.bayesian:
        tuner = tuning.BayesianOptimization(Perceptron(), project=project, num_initial_points=3, **arguments)
    else:
        tuner = tuning.RandomSearch(Perceptron(), project=project, **arguments)
    tuner.search(
        *train, validation_data=validation, epochs=options.epochs, batch_size=options.batch_size,
        callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=options.patience)],
    )
    tuning.evaluate(tuner, *test, [str(name) for name in digits.target_names])


if __name__ == "__main__":
    parser = tuning.ArgumentParser(__doc__)
    parser.add_argument("--bayesian", action="store_true", help="Bayesian optimization instead of random search")
    tuning.run(main, parser, "digits_bayesian" if "--bayesian" in sys.argv else "digits_random")
