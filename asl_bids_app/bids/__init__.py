"""Reading and writing BIDS: finding runs, understanding sidecars, writing derivatives."""
