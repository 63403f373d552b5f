"""What a trained model is used for: evaluation by published protocols, features, figures."""
