"""What flow can be, by which both estimates and metrics are judged."""

from typing import Final

CBF_LIMIT: Final = 200.0
"""mL/100 g/min; a voxel above it is counted as implausible."""
