"""Training the members of an ensemble."""
