"""Thin nipype shells around the pure functions."""
