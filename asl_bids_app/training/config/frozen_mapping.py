"""A mapping that doesn't change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import (
    Any,
)


class Frozen(Mapping[Any, Any]):
    """A mapping that doesn't change and, unlike a mapping proxy, can be copied and pickled."""

    def __init__(self, content: Mapping[Any, Any] | None = None) -> None:
        self._content = dict(content or {})

    def __getitem__(self, key: Any) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return repr(self._content)
