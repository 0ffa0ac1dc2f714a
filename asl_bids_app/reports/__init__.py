"""HTML reports of participants and groups."""
