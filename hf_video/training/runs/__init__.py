"""Whole training runs, from data to a folder with a model: one file per task."""
