"""Estimators of CBF and ATT behind one small interface."""
