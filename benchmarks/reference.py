"""The straightforward way, to measure against: a plain CNN, random search as in KerasTuner's guide, float32.

    python benchmarks/reference.py --results-dir DIR [--max-trials 10] [--epochs 30] [--seed 1] [--without-pause]

Keras' and KerasTuner's defaults wherever there is one, but for what tuning/environment.py sets: TensorFlow is
deterministic, and memory does not grow from trial to trial. With --without-pause, the same data come as datasets
without autotuning (see common.dataset), all else is equal. It prints an epoch a line, and at the end one line of JSON;
benchmarks/speed.py runs it.
"""

import argparse
import json

import trainings  # first: it sets up TensorFlow
import common

import keras
import keras_tuner as kt
import tensorflow as tf


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", required=True)
    parser.add_argument("--max-trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train-images", type=int, default=common.TRAIN_IMAGES)
    parser.add_argument("--without-pause", action="store_true")
    settings = parser.parse_args()

    tf.config.threading.set_intra_op_parallelism_threads(0)  # TensorFlow's default: as many as there are cores
    keras.utils.set_random_seed(settings.seed)
    (images, labels), validation = common.load_train_data(settings.train_images)
    data = {"x": images, "y": labels, "batch_size": 128, "validation_data": validation}
    if settings.without_pause:
        data = {
            "x": common.dataset(images, labels, 128, shuffle=True),
            "validation_data": common.dataset(*validation, 128),
            "shuffle": False,  # the dataset does
        }
    space = kt.HyperParameters()
    common.CNN().build(space)
    tuner = kt.RandomSearch(
        build_model,
        objective="val_accuracy",
        max_trials=settings.max_trials,
        seed=settings.seed,
        hyperparameters=space,
        directory=settings.results_dir,
        project_name="reference",
    )
    tuner.search(
        **data,
        epochs=settings.epochs,
        callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=3), trainings.EpochTimes()],
        verbose=2,
    )
    test_accuracy = tuner.get_best_models()[0].evaluate(*common.load_test_data(), verbose=0)[1]
    val_accuracy = tuner.oracle.get_best_trials()[0].score
    epochs = trainings.EpochTimes.trainings
    print(json.dumps({"epochs": epochs, "val_accuracy": val_accuracy, "test_accuracy": test_accuracy}))


if __name__ == "__main__":
    main()
