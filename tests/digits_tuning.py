"""The engine on another problem: scikit-learn's digits, other hyperparameters, and a loss to minimise.

With --growing, the search space grows while it is searched, as in KerasTuner's guides.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tuning.command_line import Parser, errors_in_one_line

parser = Parser(__doc__)
parser.add_argument("--bayesian", action="store_true", help="Bayesian optimization instead of random search")
parser.add_argument("--growing", action="store_true", help="tune each layer on its own")
parser.add_number("--initial-points", 2, "random trials before the Gaussian process proposes")
args = parser.parse_args()

with errors_in_one_line():
    from tuning.environment import keras, kt  # isort: skip (first: it sets up TensorFlow)
    from sklearn.datasets import load_digits

    from tuning.report import report
    from tuning.tuner import BayesianOptimization, RandomSearch

    def build(hp):
        layers = keras.layers
        model = keras.Sequential([keras.Input((8, 8)), layers.Rescaling(1 / 16), layers.Flatten()])
        for i in range(hp.Int("layers", 1, 3)):
            name = f"_{i}" if args.growing else ""
            model.add(layers.Dense(hp.Int(f"units{name}", 8, 64, 8), hp.Choice(f"activation{name}", ["relu", "tanh"])))
        model.add(layers.Dense(10, "softmax", dtype="float32"))
        optimizer = keras.optimizers.SGD(hp.Float("rate", 0.01, 1, sampling="log"), momentum=0.9)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    digits = load_digits()
    train, validation, test = (
        (digits.images[part], digits.target[part]) for part in (slice(1000), slice(1000, 1400), slice(1400, None))
    )
    strategy = BayesianOptimization if args.bayesian else RandomSearch
    tuner = strategy(build, kt.Objective("val_loss", "min"), "digits", args)
    tuner.search(*train, validation_data=validation, epochs=args.epochs, batch_size=args.batch_size)
    report(tuner, *test)
