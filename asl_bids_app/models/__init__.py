"""Trained models: the folder format, and the bundled default."""
