"""The order in which samples make batches."""
