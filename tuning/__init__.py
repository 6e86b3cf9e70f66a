"""Runs a KerasTuner search so that it can be interrupted, resumed, run by several processes, and reported."""
