"""What every model of ours is made of: configuration, model, outputs, losses, processors, and files of weights."""
