"""Differential privacy: bounded updates, noise, and what they guarantee."""
