"""What a finished search prints and leaves behind: tables, models, pictures, and a comparison with the other strategy.

All of it is made from the stored trials and the test set: a second run of a finished search makes it again. What was
trained comes first; what is more than that follows, where it can be made.
"""

import csv
import math

from tuning import comparison, environment, figures, models
from tuning.command_line import printable, stop
from tuning.folder import whole_file, write_json
from tuning.oracle import ENDED
from tuning.progress import read_epochs
from tuning.text import duration, print_table, short, spelled


def report(tuner, *test_data, image_classes=None):
    """Evaluates the best model on the test set, writes the files of a finished search, and prints its result.

    Args:
        tuner: a Tuner whose search has ended.
        test_data: as for keras.Model.evaluate: inputs, targets and sample weights, or a dataset.
        image_classes: the names of the classes, for pictures of an image classifier's errors.
    """
    try:
        _report(tuner, test_data, image_classes)
    finally:
        tuner.folder.leave()


def _report(tuner, test_data, image_classes):
    oracle, folder = tuner.files, tuner.folder.path
    objective = oracle.objective
    oracle.read()
    records = [trial_record(oracle, number) for number in oracle.states if oracle.has_ended(number)]
    ranking = best_first(records, objective)
    if not ranking or ranking[0][objective.name] is None:
        reason = ranking[0]["message"] if ranking else "there is nothing to try"
        stop(f"all trials failed, the first one with {reason}: see error.txt in {folder}/trial_1")
    if len(oracle.states) > oracle.max_trials:
        print(f"{len(oracle.states)} trials are stored, more than --max-trials {oracle.max_trials}: all are shown")
    write_csv(folder / "trials.csv", ranking)
    print()
    print_trials(ranking, objective)
    best = ranking[0]
    space = oracle.get_space().space
    hints = [hint for hp in space for hint in edge_hints(hp, best["hyperparameters"].get(hp.name))]
    print(*hints, sep="\n", end="\n" * bool(hints))

    best_models = models.load_best(tuner)
    summary = {
        "strategy": tuner.strategy,
        "settings": tuner.settings,
        "objective": {"name": objective.name, "direction": objective.direction},
        "best": {name: best[name] for name in ("trial", "hyperparameters", objective.name)},
        "hints": hints,
        "elapsed_seconds": elapsed_seconds(oracle.states.values()),
        "seconds_of_trials": sum(record["seconds"] for record in records),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
        "trials": records,
    }
    if best_models:
        models.save(best_models[0], folder / "best_model.keras")
        summary["best"] |= models.measure(best_models[0], tuner, test_data)
    write_json(folder / "summary.json", summary)
    test = objective.name.replace("val_", "test_")
    print("\nBest hyperparameters:")
    for name, value in best["hyperparameters"].items():
        print(f"  {printable(name)}: {short(value)}")
    total = max(oracle.max_trials, len(records))
    print(f"Best {spelled(objective.name)}: {best[objective.name]:.4f} (trial {best['trial']} of {total})")
    for name in [test] if test in summary["best"] else [each for each in summary["best"] if each.startswith("test_")]:
        print(f"{spelled(name).capitalize()}: {summary['best'][name]:.4f}")

    if together := models.mean(best_models):
        models.save(together, folder / "best_four.keras")
        numbers = [int(trial.trial_id) for trial in oracle.best_trials()]
        summary["best_four"] = {"trials": numbers} | models.measure(together, tuner, test_data)
        write_json(folder / "summary.json", summary)
        found = [f"{spelled(each)} {summary['best_four'][each]:.4f}" for each in (test, objective.name)
                 if each in summary["best_four"]]  # fmt: skip
        print(f"Best {len(numbers)} together: {', '.join(found)}")
    print(f"Total elapsed time: {duration(summary['elapsed_seconds'])}")

    pictures = {
        "progress": figures.progress(records, objective),
        "hyperparameters": figures.hyperparameters(records, best, objective, space),
        "learning_curves": figures.learning_curves(records, best, objective),
    }
    if image_classes and best_models:
        batch_size = tuner.fit_kwargs.get("batch_size")
        outputs = best_models[0].predict(test_data[0], batch_size=batch_size, verbose=0)
        targets, probabilities = figures.classes(test_data[1], outputs)
        pictures["confusion_matrix"] = figures.confusion_matrix(targets, probabilities, image_classes)
        pictures["mistakes"] = figures.mistakes(test_data[0], targets, probabilities, image_classes)
    for name, figure in pictures.items():
        if figure:
            figures.save(folder / f"{name}.png", figure)
    comparison.compare(folder, summary)
    print(f"\nModels, tables and pictures are in {printable(folder)}")


def elapsed_seconds(states):
    """For how long at least one of the ended trials ran: what several processes do at the same time counts once."""
    total = end = 0
    for state in sorted((each for each in states if each["status"] in ENDED), key=lambda each: each["started"]):
        total += max(0, state["ended"] - max(end, state["started"]))
        end = max(end, state["ended"])
    return total


# --- Trials -----------------------------------------------------------------------------------------------------------


def rounded(values):
    """Values with 12 digits: a float's steps add up to 0.30000000000000004."""
    return {name: float(f"{value:.12g}") if isinstance(value, float) else value for name, value in values.items()}


def trial_record(oracle, number):
    """One ended trial as a dictionary of plain values.

    `best_epoch` counts from 1, `seconds` are from the trial's start to its end; a failed trial's best epoch and
    objective are None.
    """
    state, trial = oracle.states[number], oracle.trials[str(number)]
    rows, completed = read_epochs(oracle.run_folder(number)), trial.status == "COMPLETED"
    metrics = dict.fromkeys(name for row in rows for name in row["metrics"])
    active = {name: value for name, value in trial.hyperparameters.values.items() if trial.hyperparameters.is_active(name)}
    return {
        "trial": number,
        "proposed_by": state["proposed_by"],
        "status": trial.status,
        "hyperparameters": rounded(active),
        "best_epoch": trial.best_step + 1 if completed and rows else None,
        "epochs": len(rows),
        oracle.objective.name: trial.score if completed else None,
        "seconds": state["ended"] - state["started"],
        "message": None if completed else printable(trial.message.splitlines()[0]),
        "curves": {name: [row["metrics"].get(name) for row in rows] for name in metrics}
        | {"seconds": [row["seconds"] for row in rows]},
    }


def best_first(records, objective):
    """Sorts records by the objective, the failed ones last."""
    name, sign = objective.name, -1 if objective.direction == "max" else 1
    return sorted(records, key=lambda record: math.inf if record[name] is None else sign * record[name])


def write_csv(path, records):
    """Writes records with all their digits, without the learning curves."""
    own = [name for name in records[0] if name not in ("hyperparameters", "curves")]
    rows = []
    for record in records:
        values = {name if name not in own else f"{name} (hyperparameter)": value
                  for name, value in record["hyperparameters"].items()}  # fmt: skip
        rows.append({name: record[name] for name in own} | values)
    with whole_file(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)


def print_trials(records, objective):
    """Prints a table of trials, and why some failed."""
    names = list(dict.fromkeys(name for record in records for name in record["hyperparameters"]))
    shows_proposer = any(record["proposed_by"] != "random" for record in records)
    rows = []
    for record in records:
        failed = record[objective.name] is None
        rows.append([
            record["trial"],
            *(short(record["hyperparameters"].get(name, "-")) for name in names),
            f"{record['best_epoch'] or '-'}/{record['epochs']}",
            "failed" if failed else f"{record[objective.name]:.4f}",
            round(record["seconds"]),
            *([record["proposed_by"]] if shows_proposer else ()),
        ])
    last = ["epochs", objective.name.replace("_", " "), "seconds", *(["proposed by"] if shows_proposer else ())]
    print_table(["trial", *map(spelled, names), *last], rows)
    for record in records:
        if record["message"]:
            print(f"Trial {record['trial']} failed: {record['message']}")


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
                f"Hint: the best {printable(hp.name)}, {short(value)}, is at the {end} end of its range: "
                f"a wider one, to {wider:.3g} for example, may hold better values"
            ]
    return []
