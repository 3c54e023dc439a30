"""AWS event streams (`application/vnd.amazon.eventstream`): frames with two CRCs, as Bedrock's streams are made of.

    python3 tests/support/eventstream.py FILE    shows the frames of a file
"""

from __future__ import annotations

import base64
import json
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# total length, length of the headers; then a CRC of those eight bytes.
PRELUDE = struct.Struct(">II")
CRC = struct.Struct(">I")
STRING = 7
PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
CONTENT_TYPE = "application/vnd.amazon.eventstream"


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame; every header is a string."""
    packed = b"".join(
        bytes([len(name)]) + name.encode() + struct.pack(">BH", STRING, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = PRELUDE.pack(PRELUDE.size + 2 * CRC.size + len(packed) + len(payload), len(packed))
    frame = prelude + CRC.pack(zlib.crc32(prelude)) + packed + payload
    return frame + CRC.pack(zlib.crc32(frame))


def event(kind: str, payload: Mapping[str, Any], padding: int = 0) -> bytes:
    """An event as Bedrock writes it: keys in order, with a `p` of random length against traffic analysis."""
    padded = {**payload, "p": PADDING[:padding]} if padding else dict(payload)
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return encode(headers, json.dumps(padded, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def exception(kind: str, message: str) -> bytes:
    """An error in the middle of a stream."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return encode(headers, json.dumps({"message": message}, separators=(",", ":")).encode())


def model_chunk(chunk: Mapping[str, Any], padding: int) -> bytes:
    """An event of InvokeModelWithResponseStream: the model's own JSON in base64."""
    inner = json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode()
    return event("chunk", {"bytes": base64.b64encode(inner).decode()}, padding)


def split(data: bytes) -> Iterator[bytes]:
    """The frames of a whole stream; what is no complete frame comes last, as it is."""
    while data:
        total = PRELUDE.unpack_from(data)[0] if len(data) >= PRELUDE.size else 0
        size = total if PRELUDE.size < total <= len(data) else len(data)
        yield data[:size]
        data = data[size:]


def decode(frame: bytes) -> tuple[dict[str, str], bytes]:
    """A frame's string headers and payload; ValueError where a CRC is wrong."""
    total, length = PRELUDE.unpack_from(frame)
    if total != len(frame) or CRC.unpack_from(frame, 8)[0] != zlib.crc32(frame[:8]):
        raise ValueError("prelude")
    if CRC.unpack(frame[-4:])[0] != zlib.crc32(frame[:-4]):
        raise ValueError("message CRC")
    headers, at = {}, 12
    while at < 12 + length:
        name = frame[at + 1 : at + 1 + frame[at]]
        at += 1 + len(name)
        kind, size = struct.unpack_from(">BH", frame, at)
        if kind != STRING:
            raise ValueError(f"header type {kind}")
        headers[name.decode()] = frame[at + 3 : at + 3 + size].decode()
        at += 3 + size
    return headers, frame[12 + length : -4]


if __name__ == "__main__":
    for found in split(Path(sys.argv[1]).read_bytes()):
        headers, payload = decode(found)
        print(len(found), headers, payload.decode())
