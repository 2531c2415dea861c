"""What can go wrong while drawing, each with a message that says what, where, and what to do next."""

from __future__ import annotations


class NewbieError(Exception):
    """Base of all errors that a user of the pipeline can act on."""


class PromptError(NewbieError):
    """The XML of a prompt cannot be used; the message names the tag and the line."""


class WeightsError(NewbieError):
    """A file of the weights folder is missing or is not what it should be; the message names the file."""


class AttentionError(NewbieError):
    """The attention that was asked for cannot run here, or something else ran in its place."""


class MemoryBudgetError(NewbieError):
    """The parts that must be on the GPU together do not fit into the memory budget."""


class PictureError(NewbieError):
    """The model's numbers make no picture: a value is infinite or not a number."""


class OutputError(NewbieError):
    """The picture cannot be written where it should go."""
