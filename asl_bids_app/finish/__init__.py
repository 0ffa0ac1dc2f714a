"""The last step of a series: images, tables, sidecars and the record of what was done."""
