"""Messages as bytes: parts with their lengths, of text, numbers and bytes that both sides know."""

from collections.abc import Iterable


def pack(parts: Iterable[bytes | int]) -> bytes:
    """Parts behind their lengths; a number is 4 bytes, from 0 on."""
    whole = [p.to_bytes(4, 'big') if isinstance(p, int) else p for p in parts]
    return b''.join(len(p).to_bytes(4, 'big') + p for p in whole)


def unpack(data: bytes, number: int | None = None) -> list[bytes]:
    """The parts again; ValueError where data is cut, too long or has another `number` of them."""
    parts, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], 'big')
        parts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(data) or number is not None and len(parts) != number:
        raise ValueError(f'a message of {len(data)} bytes is cut or has other parts')
    return parts


def number_in(part: bytes) -> int:
    """The number that `pack` wrote."""
    return int.from_bytes(part, 'big')
