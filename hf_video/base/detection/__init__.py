"""What models that find events share: configuration, model, converter, and the events themselves."""
