"""Events as bytes: fields of a user's hash, and entries of the outbox; see `scripts`."""

from __future__ import annotations

from dataclasses import replace

from recsys.state.base import StateEvent
from recsys.state.seeding import SEED_PREFIX, seed_id

#: Packed times are above zero.
_TIME_SHIFT = 2**63


def pack_time(us: int) -> bytes:
    """Eight bytes that sort as the times do."""
    return (us + _TIME_SHIFT).to_bytes(8, "big")


def unpack_time(packed: bytes) -> int:
    """The time of `pack_time`, microseconds since 1970."""
    return int.from_bytes(packed[:8], "big") - _TIME_SHIFT


def pack(us: int, code: int, item: str) -> bytes:
    """What makes seeded events alike, as bytes; see `scripts`."""
    return pack_time(us) + bytes([code]) + item.encode()


def packed_of(event: StateEvent) -> bytes:
    """See `pack`."""
    return pack(event.timestamp, event.event_code, event.item_id)


def seeded_field(nth: int | str, packed: bytes) -> bytes:
    """The field of a seeded event, the nth of those that are alike."""
    return f"s{nth}:".encode() + packed


def field_of(event: StateEvent) -> bytes:
    """The event's id as a field; a seeded event's id is not spelled out."""
    begin = seed_id(event).removesuffix("0")
    nth = event.event_id.removeprefix(begin)
    if nth != event.event_id and nth.isascii() and nth.isdigit():
        return seeded_field(nth, packed_of(event))
    return b"e" + event.event_id.encode()


def event_of(user_id: str, field: bytes, value: bytes) -> StateEvent:
    """The event of a field of a user's hash."""
    event_id, packed = field[1:].decode() if value else "", value
    if not value:
        nth, _, packed = field[1:].partition(b":")
    us, code, item = unpack_time(packed), packed[8], packed[9:].decode()
    if not value:
        event_id = f"{SEED_PREFIX}{us}:{item}:{code}:{nth.decode()}"
    return StateEvent(user_id, event_id, item, code, us)


def waiting_event(values: dict[bytes, bytes]) -> StateEvent:
    """The event of an entry of the outbox."""
    event = event_of(values[b"u"].decode(), b"e" + values[b"i"], values[b"p"])
    details = values.get(b"d")
    return event if details is None else replace(event, details=details.decode())
