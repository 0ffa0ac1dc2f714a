"""From volumes to calibrated, averaged ΔM/M0: motion, mask, M0, tissue."""
