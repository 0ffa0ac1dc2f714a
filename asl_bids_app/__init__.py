"""CBF and ATT maps with error bars from multi-delay ASL in BIDS."""

__version__ = "0.1.0"
