"""Check the descriptors of a CDC ACM device by the specifications' words, without any of the product's code.

Sources: USB 2.0, tables 9-8 to 9-16; the association descriptor's change notice; CDC 1.2, tables 11 to 16; CDC PSTN 1.2, table 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

DEVICE, CONFIGURATION, INTERFACE, ENDPOINT, ASSOCIATION, CLASS_INTERFACE = 1, 2, 4, 5, 11, 0x24
COMMUNICATIONS, DATA, ABSTRACT_CONTROL = 0x02, 0x0A, 0x02
HEADER, CALL_MANAGEMENT, ABSTRACT, UNION = 0, 1, 2, 6
BULK, INTERRUPT = 2, 3


@dataclass
class Interface:
    number: int
    kind: tuple[int, int, int]
    functional: dict[int, bytes] = field(default_factory=dict)
    endpoints: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """By address: attributes, packet size, interval."""


def check_device(data: bytes) -> tuple[int, int, tuple[int, int, int]]:
    """Check a device descriptor; return vendor, product and the indexes of its strings."""
    length, kind, usb, device_class, sub_class, protocol, packet, vendor, product, _, maker, name, serial, configurations = (
        struct.unpack("<BBHBBBBHHHBBBB", data)
    )
    assert (length, kind, configurations) == (18, DEVICE, 1)
    assert usb == 0x0200
    assert packet in (8, 16, 32, 64)
    assert (device_class, sub_class, protocol) == (0xEF, 2, 1), "required where there is an association descriptor"
    assert vendor
    return vendor, product, (maker, name, serial)


def check_configuration(data: bytes) -> list[Interface]:
    """Check a configuration with all that belongs to it; return its interfaces."""
    length, kind, total, count, value, _, attributes, power = struct.unpack_from("<BBHBBBBB", data)
    assert (length, kind, total, value) == (9, CONFIGURATION, len(data), 1)
    assert attributes & 0x9F == 0x80, "bit 7 is always set, bits 4 to 0 never"
    assert 2 * power <= 500
    interfaces: list[Interface] = []
    associations: list[tuple[int, int]] = []
    promised = 0
    at = length
    while at < total:
        part = data[at : at + data[at]]
        assert len(part) == data[at] >= 3
        at += len(part)
        if part[1] == ASSOCIATION:
            assert len(part) == 8
            assert part[4:7] == bytes([COMMUNICATIONS, ABSTRACT_CONTROL, 0])
            associations.append((part[2], part[3]))
        elif part[1] == INTERFACE:
            assert len(part) == 9
            assert not interfaces or len(interfaces[-1].endpoints) == promised
            assert part[3] == 0, "no alternate settings"
            assert part[2] == len(interfaces)
            promised = part[4]
            interfaces.append(Interface(part[2], (part[5], part[6], part[7])))
        elif part[1] == CLASS_INTERFACE:
            assert part[2] == HEADER or HEADER in interfaces[-1].functional, "the header comes first"
            interfaces[-1].functional[part[2]] = part[3:]
        else:
            assert part[1] == ENDPOINT
            assert len(part) == 7
            address, attribute, size, interval = struct.unpack_from("<BBHB", part, 2)
            assert not address & 0x70
            assert address & 15
            assert all(address not in each.endpoints for each in interfaces)
            interfaces[-1].endpoints[address] = (attribute, size, interval)
    assert at == total
    assert len(interfaces[-1].endpoints) == promised
    assert len(interfaces) == count
    assert associations == [(0, count)]
    return interfaces


def check_serial_port(interfaces: list[Interface]) -> tuple[int, int]:
    """Check that two interfaces are a CDC ACM function; return the addresses of its data endpoints, in and out."""
    control, data = interfaces
    assert control.kind[:2] == (COMMUNICATIONS, ABSTRACT_CONTROL)
    assert data.kind == (DATA, 0, 0)
    assert control.functional.keys() == {HEADER, CALL_MANAGEMENT, ABSTRACT, UNION}
    assert control.functional[HEADER] in (b"\x10\x01", b"\x20\x01")
    assert len(control.functional[ABSTRACT]) == 1
    assert control.functional[ABSTRACT][0] & 0x02, "line coding and line state"
    assert control.functional[UNION] == bytes([control.number, data.number])
    assert control.functional[CALL_MANAGEMENT][1] == data.number
    ((address, (attributes, size, interval)),) = control.endpoints.items()
    assert address & 0x80
    assert attributes & 3 == INTERRUPT
    assert size <= 64
    assert 1 <= interval <= 255
    assert {attributes for attributes, _, _ in data.endpoints.values()} == {BULK}
    assert {size for _, size, _ in data.endpoints.values()} <= {8, 16, 32, 64}
    (inward,) = (each for each in data.endpoints if each & 0x80)
    (outward,) = (each for each in data.endpoints if not each & 0x80)
    return inward, outward
