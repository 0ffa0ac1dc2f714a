"""Making the estimator from physics alone: phantoms, training, validation, export."""
