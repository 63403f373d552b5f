"""Rows to samples to batches: labelled clips, captions, questions, streams."""
