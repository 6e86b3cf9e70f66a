"""What a finished search prints and leaves behind: tables, models, pictures, and a comparison with the other strategy.

All of it is made from the stored trials and the test set: a second run of a finished search makes it again. What was
trained comes first; what is more than that follows, where it can be made.
"""

import csv
import math

import matplotlib.style

from tuning import environment, figures, models
from tuning.command_line import printable, stop
from tuning.display import duration, flat, print_table, print_trials, short, spelled
from tuning.environment import np
from tuning.folder import read_json, whole_file, write_json


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
        records = [trial.record(objective) for trial in oracle.trials.values() if trial.has_ended]
        sign = -1 if objective.direction == "max" else 1
        ranking = sorted(records, key=lambda each: math.inf if each["score"] is None else sign * each["score"])
        if not ranking or ranking[0]["score"] is None:
            stop(f"no trial was completed, see {path}/trial_1: {ranking[0]['message'] if ranking else 'none was run'}")
        if len(records) > oracle.max_trials:
            print(f"{len(records)} trials are stored, more than --max-trials {oracle.max_trials}: all are shown")
        write_csv(path / "trials.csv", ranking)
        print()
        print_trials(ranking)

        best, test, best_models = ranking[0], objective.name.replace("val_", "test_"), models.load_best(tuner)
        measured = models.measure(best_models[0], tuner, test_data) if best_models else {}
        summary = {"strategy": tuner.strategy, "settings": tuner.settings, "elapsed_seconds": elapsed_seconds(records)}
        summary["objective"] = {"name": objective.name, "direction": objective.direction}
        summary["best"] = measured | {objective.name: best["score"]}
        summary["best"] |= {"trial": best["trial"], "hyperparameters": best["hyperparameters"]}
        summary |= {"best_four": {}, "hardware": environment.hardware(), "versions": environment.versions()}
        summary["trials"] = records
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
        print(f"Total elapsed time: {duration(summary['elapsed_seconds'])}")

        summaries = compare(path, summary)
        with matplotlib.style.context("default", after_reset=True):  # whatever a matplotlibrc says
            pictures = {"search": figures.search(records, best, objective, oracle.get_space().space)}
            if image_classes and best_models:
                pictures |= _errors(best_models[0], test_data, tuner.fit_kwargs.get("batch_size"), image_classes)
            if len(summaries) > 1:
                searches = {strategy: each["trials"] for strategy, each in summaries.items()}
                pictures["../comparison"] = figures.comparison(searches, objective)
            for name, figure in pictures.items():
                figures.save(path / f"{name}.png", figure)
        print(f"\nModels, tables and pictures are in {printable(path)}")


def _errors(model, test_data, batch_size, class_names):
    if len(test_data) == 1:  # a dataset
        test_data = [np.concatenate(each) for each in zip(*test_data[0].as_numpy_iterator())]
    images, targets, *_ = test_data
    targets, probabilities = figures.classes(targets, model.predict(images, batch_size=batch_size, verbose=0))
    return {
        "confusion_matrix": figures.confusion_matrix(targets, probabilities, class_names),
        "mistakes": figures.mistakes(images, targets, probabilities, class_names),
    }


def elapsed_seconds(records):
    """For how long at least one of the trials ran: what several processes do at the same time counts once."""
    total = end = 0
    for start, seconds in sorted((each["started"], each["seconds"]) for each in records):
        total += max(0, start + seconds - max(end, start))
        end = max(end, start + seconds)
    return total


def write_csv(path, records):
    """Writes the records of trials with all their digits, without the learning curves."""
    rows = [flat(each) for each in records]
    with whole_file(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)


def compare(path, summary):
    """Prints a search in the folder `path` beside the other strategy's for the same problem, if one lies beside it.

    Returns the summaries of both, or of the one, by their strategies.
    """

    def problem(each):
        return each["objective"], {name: value for name, value in each["settings"].items() if "search space" in name}

    found = {summary["strategy"]: summary}
    for other in map(read_json, path.parent.glob("*/summary.json")):
        if other.keys() == summary.keys() and problem(other) == problem(summary):
            found.setdefault(other["strategy"], other)
    if len(found) == 1:
        return found
    objective, rows = summary["objective"]["name"], {}
    found = dict(sorted(found.items(), reverse=True))
    for strategy, each in found.items():
        values = {"trials": len(each["trials"]), "elapsed time": duration(each["elapsed_seconds"])}
        for model in "best", "best_four":
            for metric in objective, objective.replace("val_", "test_"):
                values[f"{model}: {metric}"] = f"{each[model].get(metric, math.nan):.4f}"
        values |= {f"best: {name}": value for name, value in each["best"]["hyperparameters"].items()}
        for name, value in values.items():
            rows.setdefault(name, {"": spelled(name)})[strategy] = value
    print()
    print_table([*rows.values()])
    one, other = (each["settings"] for each in found.values())
    if changed := [n for n in one if n in other and one[n] != other[n] and n != "strategy"]:
        print("The settings differ:", printable("; ".join(f"{n} ({one[n]}, {other[n]})" for n in changed)))
    return found
