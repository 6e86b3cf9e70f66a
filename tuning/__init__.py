"""Runs a KerasTuner search so that it can be interrupted, resumed, run by several processes, and reported.

command_line parses the options and imports nothing slow. tuner has the two strategies, report the result.
"""
