"""What a finished search prints and leaves behind: tables, models, pictures, and a comparison with the other strategy.

All of it is made from the stored trials and the test set: a second run of a finished search makes it again. What was
trained comes first; what is more than that follows, where it can be made.
"""

import math

from tuning import environment, figures, models, tables
from tuning.command_line import printable, stop
from tuning.environment import np
from tuning.folder import write_json
from tuning.tables import short, spelled


def report(tuner, *test_data, image_classes=None):
    """Evaluates the best model on the test set, writes the files of a finished search, and prints its result.

    Args:
        tuner: a Tuner whose search has ended.
        test_data: as for keras.Model.evaluate: inputs, targets and sample weights, or a dataset.
        image_classes: the names of the classes, for pictures of an image classifier's errors.
    """
    with tuner.folder:
        oracle, path, objective = tuner.shared_oracle, tuner.folder.path, tuner.shared_oracle.objective
        oracle.read()
        trials = [trial for trial in oracle.trials.values() if trial.has_ended]
        records = [trial.record(path, objective) for trial in trials]
        sign = -1 if objective.direction == "max" else 1
        ranking = sorted(records, key=lambda each: math.inf if each["score"] is None else sign * each["score"])
        if not ranking or ranking[0]["score"] is None:
            stop(f"no trial was completed, see {path}/trial_1: {ranking[0]['message'] if ranking else 'none was run'}")
        if len(trials) > oracle.max_trials:
            print(f"{len(trials)} trials are stored, more than --max-trials {oracle.max_trials}: all are shown")
        tables.write_csv(path / "trials.csv", ranking)
        print()
        tables.print_trials(ranking, objective)

        best, test = ranking[0], objective.name.replace("val_", "test_")
        best_models = models.load_best(tuner)
        measured = models.measure(best_models[0], tuner, test_data) if best_models else {}
        summary = {
            "strategy": tuner.strategy,
            "settings": tuner.settings,
            "objective": {"name": objective.name, "direction": objective.direction},
            "best": measured | {objective.name: best["score"], **{n: best[n] for n in ("trial", "hyperparameters")}},
            "best_four": {},
            "elapsed_seconds": elapsed_seconds(trials),
            "hardware": environment.hardware(),
            "versions": environment.versions(),
            "trials": records,
        }
        if best_models:
            models.save(best_models[0], path / "best_model.keras")
        write_json(path / "summary.json", summary)
        print("\nBest hyperparameters:")
        for name, value in best["hyperparameters"].items():
            print(f"  {printable(name)}: {short(value)}")
        total = max(oracle.max_trials, len(records))
        print(f"Best {spelled(objective.name)}: {best['score']:.4f} (trial {best['trial']} of {total})")
        for name in [test] if test in measured else [each for each in measured if each.startswith("test_")]:
            print(f"{spelled(name).capitalize()}: {measured[name]:.4f}")
        if together := models.mean(best_models):
            models.save(together, path / "best_four.keras")
            summary["best_four"] = four = models.measure(together, tuner, test_data)
            write_json(path / "summary.json", summary)
            values = ", ".join(f"{spelled(name)} {four[name]:.4f}" for name in (test, objective.name) if name in four)
            print(f"Best {len(best_models)} together: {values}")
        print(f"Total elapsed time: {tables.duration(summary['elapsed_seconds'])}")

        with figures.plain_style():
            pictures = {
                "progress": figures.progress({"best so far": records}, objective),
                "hyperparameters": figures.hyperparameters(records, best, objective, oracle.get_space().space),
            }
            if any(objective.name in each["curves"] for each in records):
                pictures["learning_curves"] = figures.learning_curves(records, best, objective)
            if image_classes and best_models:
                if len(test_data) == 1:  # a dataset
                    test_data = [np.concatenate(each) for each in zip(*test_data[0].as_numpy_iterator())]
                outputs = best_models[0].predict(test_data[0], batch_size=tuner.fit_kwargs.get("batch_size"), verbose=0)
                targets, probabilities = figures.classes(test_data[1], outputs)
                pictures["confusion_matrix"] = figures.confusion_matrix(targets, probabilities, image_classes)
                pictures["mistakes"] = figures.mistakes(test_data[0], targets, probabilities, image_classes)
            both = tables.print_comparison(path, summary)
            if len(both) > 1:
                trials = {strategy: each["trials"] for strategy, each in both.items()}
                pictures["../comparison"] = figures.progress(trials, objective)
            for name, figure in pictures.items():
                figures.save(path / f"{name}.png", figure)
        print(f"\nModels, tables and pictures are in {printable(path)}")


def elapsed_seconds(trials):
    """For how long at least one of the trials ran: what several processes do at the same time counts once."""
    total = end = 0
    for trial in sorted(trials, key=lambda each: each.started):
        total += max(0, trial.ended - max(end, trial.started))
        end = max(end, trial.ended)
    return total
