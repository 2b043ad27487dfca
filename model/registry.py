"""Names a user may write, and what each one builds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

from model.errors import DuplicateNameError, UnknownNameError

T = TypeVar("T")


class Registry(dict[str, T]):
    """A dict that refuses duplicates and explains an unknown name.

    Example:
        >>> shapes: Registry[int] = Registry("shape")
        >>> _ = shapes.register("square")(4)
        >>> shapes["sqare"]
        Traceback (most recent call last):
        model.errors.UnknownNameError: unknown shape 'sqare'. Did you mean 'square'? Known: square.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate what `name` should build."""

        def add(entry: T) -> T:
            if self.setdefault(name, entry) is not entry:
                raise DuplicateNameError(self.kind, name)
            return entry

        return add

    def __missing__(self, name: str) -> NoReturn:
        raise UnknownNameError(self.kind, name, known=self)
