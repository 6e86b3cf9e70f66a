"""The models that a search leaves behind."""

import hashlib
import json

import keras

from tuning import process
from tuning.files import whole_file
from tuning.trials import number


def export(tuner):
    """Saves the best trial's model and the mean of the best trials' models, each as one file.

    A model of one trial is named for the trial and for all that it was made from.

    Args:
        tuner: a Tuner whose search has ended.

    Returns:
        Two compiled keras.Model, which compute in float32 on any machine: that of best_model.keras, and that of
        best_four.keras, the mean of the best four trials' outputs, or of fewer where fewer were completed.

    Raises:
        SearchFailed: no trial was completed.
    """
    trials = tuner.oracle.best_trials()
    if not trials:
        reason = next((trial.message for trial in tuner.oracle.trials.values()), "none was started")
        raise process.SearchFailed(f"all trials failed, the first one with {reason}")
    tuner.precision = "float32"
    models = tuner.get_best_models(len(trials))
    for trial, model in zip(trials, models):
        origin = json.dumps([tuner.project.settings, trial.get_state()]).encode()
        model.name = f"trial_{number(trial.trial_id)}_{hashlib.sha256(origin).hexdigest()[:8]}"
    inputs = keras.Input(batch_shape=models[0].input_shape)
    outputs = [model(inputs) for model in models]
    mean = keras.Model(inputs, keras.layers.average(outputs) if len(outputs) > 1 else outputs, name="mean")
    compile_config = models[0].get_compile_config() | {"optimizer": "sgd"}  # which has no variables to save
    for model in (*models, mean):
        model.compile_from_config(compile_config)
    for name, model in (("best_model.keras", models[0]), ("best_four.keras", mean)):
        with whole_file(tuner.project.folder / name) as draft:
            model.save(draft)
    return models[0], mean
