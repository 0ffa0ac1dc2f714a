"""Comparing an ensemble with other methods, and calibrating its error bars."""
