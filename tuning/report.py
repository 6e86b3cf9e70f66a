"""What a finished search prints and leaves behind. A second run of a finished search makes it again."""

import csv
import warnings

from tuning import environment, figures, models  # first: they set up what the others import

import matplotlib.style
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.model_selection import permutation_test_score

from tuning.command_line import stop
from tuning.display import duration, flat, print_trials, short, spelled
from tuning.environment import np
from tuning.folder import read_json, whole_file, write_json


def report(tuner, *test_data, image_classes=None):
    """Evaluates the best model on the test set, writes the files of a finished search, and prints its result.

    `test_data` are as for keras.Model.evaluate; `image_classes`, their names, for pictures of a classifier's errors.
    """
    with tuner.folder, warnings.catch_warnings():
        # Of optimizers' variables, which models that are only to predict don't need; of characters that a font lacks.
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer|Glyph")
        oracle, path, objective = tuner.shared_oracle, tuner.folder.path, tuner.shared_oracle.objective
        ranking = [each.record(objective) for each in oracle.get_best_trials(len(oracle.trials)) if each.has_ended]
        records = sorted(ranking, key=lambda each: each["trial"])
        if ranking[0]["score"] is None:
            stop(f"no trial was completed, see {path}/trial_1: {records[0]['message']}")
        write_csv(path / "trials.csv", ranking)
        print()
        print_trials(ranking)

        best, test, best_models = ranking[0], objective.name.replace("val_", "test_"), models.load_best(tuner)
        reached, four = {}, {}
        if best_models:
            models.save(best_models[0], path / "best_model.keras")
            reached = models.measure(best_models[0], tuner, test_data)
        print("\nBest hyperparameters:")
        for name, value in best["hyperparameters"].items():
            print(f"  {name}: {short(value)}")
        print(f"Best {spelled(objective.name)}: {best['score']:.4f} (trial {best['trial']} of {len(records)})")
        for name in [test] if test in reached else [each for each in reached if each.startswith("test_")]:
            print(f"{spelled(name).capitalize()}: {reached[name]:.4f}")
        if together := models.mean(best_models):
            models.save(together, path / "best_four.keras")
            four = models.measure(together, tuner, test_data)
            values = ", ".join(f"{spelled(name)} {four[name]:.4f}" for name in (test, objective.name) if name in four)
            print(f"Best {len(best_models)} together: {values}")
        summary = {"strategy": tuner.strategy, "settings": tuner.settings, "hardware": environment.hardware()}
        summary |= {"objective": objective.name, "best": best | reached | {objective.name: best["score"]}}
        summary |= {"best_four": four, "importance": {}, "trials": records, "elapsed_seconds": elapsed_seconds(records)}
        print(f"Total elapsed time: {duration(summary['elapsed_seconds'])}")

        summaries, space = compare(path, summary), oracle.get_space().space
        summary["importance"] = importance(summaries.values(), space)
        write_json(path / "summary.json", summary)
        with matplotlib.style.context("default", after_reset=True):  # whatever a matplotlibrc says
            pictures = {"search": figures.search(records, best, objective, space)}
            if image_classes and best_models:
                pictures |= figures.errors(best_models[0], test_data, tuner.fit_kwargs.get("batch_size"), image_classes)
            if len(summaries) > 1:
                pictures["../comparison"] = figures.comparison(summaries, objective)
            for name, figure in pictures.items():
                figures.save(path / f"{name}.png", figure)
        print(f"\nModels, tables and pictures are in {path}")


def elapsed_seconds(records):
    """For how long at least one of the trials ran: what several processes do at the same time counts once."""
    total = end = 0
    for start, seconds in sorted((each["started"], each["seconds"]) for each in records):
        total += max(0, start + seconds - max(end, start))
        end = max(end, start + seconds)
    return total


def importance(summaries, space):
    """Prints what mattered most in the trials of some searches, if that can be told; returns a dictionary.

    A random forest predicts scores from hyperparameters. Importance is how much of R2 it loses when one of them is
    permuted. It can tell something if it predicts better out of its bags than 95% of those fitted to permuted scores.
    """
    records = [each for summary in summaries for each in summary["trials"] if each["score"] is not None]
    values = [tuple(each["hyperparameters"].get(hp.name, hp.default) for hp in space) for each in records]
    trials = dict(zip(values, (each["score"] for each in records)))  # both strategies begin with the same ones
    if len(trials) < 5 or not space:  # five scores have more permutations than are drawn
        return {}
    x = np.array([[hp.value_to_prob(value) for hp, value in zip(space, values)] for values in trials])
    y, rows = np.array([*trials.values()]), np.arange(len(trials))
    forest = RandomForestRegressor(30, oob_score=True, random_state=0)
    options = {"cv": [(rows, rows)], "scoring": lambda fitted, *_: fitted.oob_score_, "random_state": 0}
    _, _, p = permutation_test_score(forest, x, y, n_permutations=39, **options)
    found = permutation_importance(forest.fit(x, y), x, y, n_repeats=20, random_state=0).importances_mean
    ranking = sorted(zip(found.tolist(), (hp.name for hp in space)), reverse=True)
    told = ", ".join(f"{spelled(name)} ({value:.2f})" for value, name in ranking if value >= 0.01)
    print(f"What mattered most: {told if p <= 0.05 else 'cannot be told'}, from {len(trials)} trials (p = {p:.3f})")
    return {"p": float(p), "trials": len(trials), "importance": {name: value for value, name in ranking}}


def write_csv(path, records):
    """Writes the records of trials with all their digits, without the learning curves."""
    rows = [flat(each) for each in records]
    with whole_file(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)


def compare(path, summary):
    """Prints a search and the other strategy's with the same settings beside it; returns the summaries by strategy."""
    found, objective, mine = {summary["strategy"]: summary}, summary["objective"], summary["settings"]
    for other in map(read_json, path.parent.glob("*/summary.json")):
        if other.keys() == summary.keys():
            shared = mine.keys() & other["settings"].keys() - {"strategy", "precision", "trials at a time"}
            if all(mine[name] == other["settings"][name] for name in shared):
                found.setdefault(other["strategy"], other)
    found = dict(sorted(found.items()))  # whichever of them this is, importance() finds the same
    for strategy, each in found.items() if len(found) > 1 else ():
        metrics = ((name, each["best"].get(name)) for name in (objective, objective.replace("val_", "test_")))
        values = ", ".join(f"{spelled(name)} {value:.4f}" for name, value in metrics if value is not None)
        print(f"{strategy}, {len(each['trials'])} trials, {duration(each['elapsed_seconds'])}: {values}")
    return found
