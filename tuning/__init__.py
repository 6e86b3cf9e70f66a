"""Runs any KerasTuner search so that it can be interrupted, resumed, run in parallel and reported.

Importing this package sets up TensorFlow, so it comes before whatever else imports it.
"""

from tuning import environment  # isort: skip (before what imports TensorFlow)
from tuning.cli import ArgumentParser, run
from tuning.process import BadInput, SearchFailed
from tuning.report import evaluate
from tuning.tuner import BayesianOptimization, RandomSearch

__all__ = [
    "ArgumentParser", "BadInput", "BayesianOptimization", "RandomSearch", "SearchFailed", "environment", "evaluate",
    "run",
]
