"""One step of training, forward and backward."""
