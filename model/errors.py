"""Everything the model side can refuse."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModelError(Exception):
    """Root of the tree; the message says what was wrong, with which value, and what to do."""


class ShapeError(ModelError):
    """An array does not have the shape the function is defined for."""

    def __init__(self, name: str, *, expected: str, got: tuple[int, ...]) -> None:
        super().__init__(f"{name} has shape {got}; expected {expected}")
        self.name = name
        self.expected = expected
        self.got = got


class UnknownNameError(ModelError):
    """A name a user wrote is in no registry."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        super().__init__(f"unknown {kind} '{name}'.{hint} Known: {', '.join(known)}.")
        self.kind = kind
        self.name = name
        self.known = known


class DuplicateNameError(ModelError):
    """Two things registered under one name."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} '{name}' is registered twice; give one of them another name")


class UnreadableImageError(ModelError):
    """The bytes are not an image that can be used; the message gives the reason."""


class NotEnoughLabelsError(ModelError):
    """Too few labels, or too few classes among them, to fit a head."""


class MissingFeaturesError(ModelError):
    """Features were asked for that are not in the cache."""


class BundleError(ModelError):
    """A stored version is incomplete or was written by something else."""


class BackboneError(ModelError):
    """A backbone could not be built, exported or checked."""


class DataError(ModelError):
    """A labelled set on disk cannot be read."""


class NeedsError(ModelError):
    """An acquisition rule is missing what it works with; the message says what gives it."""
