"""The configuration of a training: its declaration, reading and recipes."""
