"""Phantoms: slices of anatomy with known CBF and ATT."""
