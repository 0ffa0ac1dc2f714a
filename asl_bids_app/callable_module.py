"""A module that can be called, for `import` binds its name over that of its function."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that stands for the function in it that has its name.

    Examples
    --------
    A module ``quantify`` with a function ``quantify`` becomes one by
    ``sys.modules[__name__].__class__ = CallableModule``.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.__name__,)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        function = getattr(self, self.__name__.rpartition(".")[2])
        return function(*arguments, **options)
