"""What a finished search prints and leaves behind: tables, pictures, and a comparison with the other strategy's search.

All of it is made from the stored trials and the test set: a second run of a finished search makes it again.
"""

import csv
import math

from tuning import comparison, environment, figures, models, workers
from tuning.files import whole_file, write_json
from tuning.text import duration, printable, short, spelled, table
from tuning.trials import ENDED, learning_curves, number, seconds_trained


def evaluate(tuner, inputs, targets, class_names=None):
    """Evaluates the best model on the test set, writes the files of a finished search, and prints its result.

    Args:
        tuner: a Tuner whose search has ended.
        inputs, targets: the test set.
        class_names: for the pictures of a classifier's errors; its targets are class numbers of shape (n,).

    Raises:
        SearchFailed: no trial was completed.
    """
    if workers.is_worker():  # the result is its chief's
        return
    oracle, folder = tuner.oracle, tuner.project.folder
    best_model, best_four = models.export(tuner)
    records = [trial_record(oracle, trial) for trial in oracle.trials.values() if trial.status in ENDED]
    ranking = best_first(records, oracle.objective)
    space = oracle.get_space().space
    summary = {
        "strategy": oracle.strategy,
        "settings": tuner.project.settings,
        "objective": {"name": oracle.objective.name, "direction": oracle.objective.direction},
        "best": {
            "trial": ranking[0]["trial"],
            "hyperparameters": ranking[0]["hyperparameters"],
            "model": best_model.name,
            **measure(best_model, tuner.validation_data, (inputs, targets)),
        },
        "best_four": {
            "trials": [number(trial.trial_id) for trial in oracle.best_trials()],
            **measure(best_four, tuner.validation_data, (inputs, targets)),
        },
        "hints": [hint for hp in space for hint in edge_hints(hp, ranking[0]["hyperparameters"].get(hp.name))],
        "elapsed_seconds": oracle.stopwatch.save(),
        "seconds_in_fit": sum(record["seconds"] for record in records),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
        "trials": records,
    }
    pictures = {
        "progress": figures.progress(records, oracle.objective),
        "hyperparameters": figures.hyperparameters(records, ranking[0], oracle.objective, space),
        "learning_curves": figures.learning_curves(records, ranking[0], oracle.objective),
    }
    if class_names:
        probabilities = best_model.predict(inputs, batch_size=1000, verbose=0)
        pictures["confusion_matrix"] = figures.confusion_matrix(targets, probabilities, class_names)
        pictures["mistakes"] = figures.mistakes(inputs, targets, probabilities, class_names)
    for name, figure in pictures.items():
        figures.save(folder / f"{name}.png", figure)
    write_csv(folder / "trials.csv", ranking)
    write_json(folder / "summary.json", summary)

    print("", *trials_table(ranking, oracle.objective), *summary["hints"], sep="\n")
    comparison.compare(folder, summary)
    print(f"\nModels, tables and pictures are in {printable(folder)}")
    print("", *result_lines(summary), sep="\n")


def measure(model, validation_data, test_data):
    """What a model reaches: each of its metrics on the validation data, val_..., and on the test data, test_..."""
    return {
        f"{prefix}_{name}": value
        for prefix, data in (("val", validation_data), ("test", test_data))
        for name, value in model.evaluate(*data, batch_size=1000, verbose=0, return_dict=True).items()
    }


# --- Trials -----------------------------------------------------------------------------------------------------------


def rounded(values):
    """Values with 12 digits: a float's steps add up to 0.30000000000000004."""
    return {name: float(f"{value:.12g}") if isinstance(value, float) else value for name, value in values.items()}


def trial_record(oracle, trial):
    """One ended trial as a dictionary of plain values.

    `best_epoch` counts from 1, `seconds` are those in fit; a failed trial's best epoch and objective are None.
    """
    curves, completed = learning_curves(trial), trial.status == "COMPLETED"
    return {
        "trial": number(trial.trial_id),
        "proposed_by": "random" if oracle.is_random(trial) else "surrogate",
        "status": trial.status,
        "hyperparameters": rounded(trial.hyperparameters.values),
        "best_epoch": trial.best_step + 1 if completed else None,
        "epochs": len(curves.get("seconds", ())),
        oracle.objective.name: trial.score if completed else None,
        "seconds": seconds_trained(trial),
        "message": None if completed else printable(trial.message),
        "curves": curves,
    }


def best_first(records, objective):
    """Sorts records by the objective, the failed ones last."""
    name, sign = objective.name, -1 if objective.direction == "max" else 1
    return sorted(records, key=lambda record: math.inf if record[name] is None else sign * record[name])


def write_csv(path, records):
    """Writes records with all their digits, without the learning curves."""
    rows = [record | record["hyperparameters"] for record in records]
    names = dict.fromkeys(name for row in rows for name in row if name not in ("hyperparameters", "curves"))
    with whole_file(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def trials_table(records, objective):
    """The lines of a table of trials, and why some failed."""
    names = list(dict.fromkeys(name for record in records for name in record["hyperparameters"]))
    rows = [["trial", *map(spelled, names), "epochs", objective.name.replace("_", " "), "seconds"]]
    for record in records:
        failed = record[objective.name] is None
        rows.append([
            record["trial"],
            *(short(record["hyperparameters"].get(name, "-")) for name in names),
            f"{'-' if failed else record['best_epoch']}/{record['epochs']}",
            "failed" if failed else f"{record[objective.name]:.4f}",
            round(record["seconds"]),
        ])
    proposers = [record["proposed_by"] for record in records]
    if "surrogate" in proposers:
        for row, proposer in zip(rows, ["proposed by", *proposers]):
            row.append(proposer)
    failures = [f"Trial {record['trial']} failed: {record['message']}" for record in records if record["message"]]
    return table(rows) + failures


def edge_hints(hp, value):
    """A line where the best value of a numeric hyperparameter lies at an end of its range, else none.

    To check the best trials against the edges of the space is an advice of Google's Deep Learning Tuning Playbook.
    """
    if value is None or not hasattr(hp, "min_value"):
        return []
    place = hp.value_to_prob(value)  # on the hyperparameter's own scale, the range goes from 0 to 1
    margin = 0.02 * (hp.value_to_prob(hp.max_value) - hp.value_to_prob(hp.min_value))
    factor = 10 if hp.sampling == "log" else 1.5
    ends = ("lower", hp.min_value, hp.min_value / factor), ("upper", hp.max_value, hp.max_value * factor)
    for end, limit, wider in ends:
        wider = round(wider) if isinstance(limit, int) else wider
        if not hp.min_value <= wider <= hp.max_value and abs(place - hp.value_to_prob(limit)) <= margin:
            return [
                f"Hint: the best {hp.name}, {short(value)}, is at the {end} end of its range: "
                f"a wider one, to {wider:.3g} for example, may hold better values"
            ]
    return []


def result_lines(summary):
    """The last lines of a search's output."""
    best, four, objective = summary["best"], summary["best_four"], summary["objective"]["name"]
    test = objective.replace("val_", "test_")
    return [
        "Best hyperparameters:",
        *(f"  {name}: {short(value)}" for name, value in best["hyperparameters"].items()),
        f"Best {spelled(objective)}: {best[objective]:.4f} (trial {best['trial']} of {len(summary['trials'])})",
        f"{spelled(test).capitalize()}: {best[test]:.4f}",
        f"Best {len(four['trials'])} together: {spelled(test)} {four[test]:.4f}, "
        f"{spelled(objective)} {four[objective]:.4f}",
        f"Total elapsed time: {duration(summary['elapsed_seconds'])}",
    ]
