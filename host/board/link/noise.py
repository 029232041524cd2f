"""A transport that damages, loses, repeats, cuts, merges and delays frames in both directions, on demand and by a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from weakcell.host.board.link.transport import Transport

KINDS = ("bits", "burst", "lost", "repeated", "cut", "merged", "delayed", "noise")
_DELAYED_MOST = 64


@dataclass
class _Way:
    """One direction: frames that were held back, and whether the last one was left open, so that the next runs into it."""

    late: list[bytes] = field(default_factory=list)
    open: bool = False


@dataclass
class NoisyTransport:
    """Another transport behind a bad cable. rate: the share of frames, each way, to which one of `KINDS` happens."""

    inside: Transport
    rate: float
    seed: int
    damaged: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._out, self._in = _Way(), _Way()

    def write(self, data: bytes) -> None:
        self.inside.write(self._spoil(data, self._out))

    def read(self, timeout_s: float) -> bytes:
        """Pieces that noise swallowed entirely do not end the wait of the link: it sees them as silence, as on a real port."""
        return self._spoil(self.inside.read(timeout_s), self._in)

    def close(self) -> None:
        self.inside.close()

    def _spoil(self, data: bytes, way: _Way) -> bytes:
        """Each frame in `data`, one by one; frames that were held back come in between."""
        random, late = self._random, way.late
        if not data:
            return late.pop(0) if late and random.random() < 0.5 else b""
        pieces = []
        for frame in data.split(b"\0"):
            if not frame:
                continue
            opened, way.open = way.open, False
            piece = b"\0" + frame + b"\0"
            if random.random() < self.rate:
                self.damaged += 1
                piece = self._damage(frame, way)
            pieces.append(piece[1:] if opened else piece)
            if late and random.random() < 0.1:
                pieces.append(late.pop(random.randrange(len(late))))
        return b"".join(pieces)

    def _damage(self, frame: bytes, way: _Way) -> bytes:
        random, late, whole = self._random, way.late, b"\0" + frame + b"\0"
        kind = random.choice(KINDS)
        if kind == "bits":
            spoiled = bytearray(whole)
            for _ in range(random.randint(1, 6)):
                spoiled[random.randrange(len(spoiled))] ^= 1 << random.randrange(8)
            return bytes(spoiled)
        if kind == "burst":
            start = random.randrange(len(whole))
            length = min(random.randint(1, 40), len(whole) - start)
            return whole[:start] + random.randbytes(length) + whole[start + length :]
        if kind == "repeated":
            late.append(whole)
            del late[:-_DELAYED_MOST]
            return whole
        if kind == "cut":
            return whole[: random.randrange(len(whole))]
        if kind == "merged":
            way.open = True
            return whole[:-1]
        if kind == "delayed":
            late.append(whole)
            del late[:-_DELAYED_MOST]
            return b""
        return random.randbytes(random.randint(1, 30)) + whole if kind == "noise" else b""
