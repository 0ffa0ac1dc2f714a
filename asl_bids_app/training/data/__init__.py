"""Phantoms on disk, and the batches that training steps start from."""
