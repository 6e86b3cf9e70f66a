"""What the precision and the number of threads that are chosen for this hardware gain, and whether they cost accuracy.

    python benchmarks/precision.py [--store precision.json]

Prints a Markdown table for one fixed set of hyperparameters and three seeds: the best validation accuracy, the epochs
until early stopping, and the median seconds of an epoch. About 15 minutes; nothing else should run on the machine.
"""

import json
import os
import subprocess
import sys

import trainings  # first: it sets up TensorFlow
from measuring import ROOT

environment = trainings.tuning.environment
PRECISIONS = dict.fromkeys(["float32", environment.fastest_precision()])
THREADS = dict.fromkeys([environment.cores(), max(1, environment.cores() // 2)])  # for one operation
VARIANTS = {f"{precision}, {threads} threads": (precision, threads) for precision in PRECISIONS for threads in THREADS}


def train(name, seed):
    """Trains in a process of its own: the number of threads can't be changed once TensorFlow is at work."""
    precision, threads = VARIANTS[name]
    code = f"import json, trainings; print(json.dumps(trainings.train({seed}, {precision!r})[1], default=float))"
    variables = {"TF_NUM_INTRAOP_THREADS": str(threads), "PYTHONPATH": str(ROOT / "benchmarks")}
    return None, json.loads(subprocess.check_output([sys.executable, "-c", code], env=os.environ | variables))


if __name__ == "__main__":
    trainings.compare(__doc__, VARIANTS, train)
