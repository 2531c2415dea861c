"""Decodes BuildKit's progress messages: protobuf `moby.buildkit.v1.StatusResponse`, as the build endpoint streams them.

Field numbers come from BuildKit's `api/services/control/control.proto`; they never change for a released message.
Four small messages do not ask for a protobuf library: fields that this module does not know are skipped, as the wire
format intends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, kw_only=True)
class Vertex:
    """A step of the build graph. Times are seconds since the epoch, None while the step has not got there."""

    digest: str = ""
    name: str = ""
    cached: bool = False
    started: float | None = None
    completed: float | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class VertexStatus:
    """How far a part of a step is, such as the transfer of one layer; current and total in bytes, 0 when unknown."""

    id: str = ""
    vertex: str = ""
    current: int = 0
    total: int = 0
    timestamp: float | None = None
    completed: float | None = None


@dataclass(frozen=True, kw_only=True)
class VertexLog:
    """Bytes that a step printed: any number of lines, the last one possibly unfinished."""

    vertex: str = ""
    timestamp: float | None = None
    stream: int = 1
    message: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One progress message."""

    vertexes: tuple[Vertex, ...] = ()
    statuses: tuple[VertexStatus, ...] = ()
    logs: tuple[VertexLog, ...] = ()


def decode(data: bytes) -> Trace:
    """Decode one StatusResponse. Raises ValueError when the bytes are not a protobuf message."""
    vertexes: list[Vertex] = []
    statuses: list[VertexStatus] = []
    logs: list[VertexLog] = []
    for number, value in _fields(data):
        if isinstance(value, bytes):
            if number == 1:
                vertexes.append(_vertex(value))
            elif number == 2:
                statuses.append(_status(value))
            elif number == 3:
                logs.append(_log(value))
    return Trace(vertexes=tuple(vertexes), statuses=tuple(statuses), logs=tuple(logs))


def _vertex(data: bytes) -> Vertex:
    fields = dict(_fields(data))
    return Vertex(
        digest=_text(fields.get(1)),
        name=_text(fields.get(3)),
        cached=bool(fields.get(4, 0)),
        started=_time(fields.get(5)),
        completed=_time(fields.get(6)),
        error=_text(fields.get(7)),
    )


def _status(data: bytes) -> VertexStatus:
    fields = dict(_fields(data))
    return VertexStatus(
        id=_text(fields.get(1)),
        vertex=_text(fields.get(2)),
        current=_integer(fields.get(4)),
        total=_integer(fields.get(5)),
        timestamp=_time(fields.get(6)),
        completed=_time(fields.get(8)),
    )


def _log(data: bytes) -> VertexLog:
    fields = dict(_fields(data))
    message = fields.get(4)
    return VertexLog(
        vertex=_text(fields.get(1)),
        timestamp=_time(fields.get(2)),
        stream=_integer(fields.get(3)),
        message=message if isinstance(message, bytes) else b"",
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a message: an int for a varint, the raw bytes for everything else."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == BYTES:
            length, position = _varint(data, position)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {position} is not protobuf")
        if position + length > len(data):
            raise ValueError(f"field {number} runs past the end of the message")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError(f"unfinished number at byte {position}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _text(value: int | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _integer(value: int | bytes | None) -> int:
    if not isinstance(value, int):
        return 0
    return value - (1 << 64) if value >> 63 else value


def _time(value: int | bytes | None) -> float | None:
    if not isinstance(value, bytes):
        return None
    fields = dict(_fields(value))
    return _integer(fields.get(1)) + _integer(fields.get(2)) / 1e9
