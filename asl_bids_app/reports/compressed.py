"""Bytes and text for scripts of a page, compressed."""

from __future__ import annotations

import base64
import gzip


def compress(content: bytes) -> str:
    """Return bytes compressed, as text for a page."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
