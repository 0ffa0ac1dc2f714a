"""The neural networks, from plain tensors to plain tensors."""
