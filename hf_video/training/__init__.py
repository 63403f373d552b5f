"""Training: arguments, trainer, recipes, the model card and the way to the Hub."""
