"""Inference by a board, image by image; every output is compared with the emulator's on what the board read back."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.executor import run_layers
from weakcell.emulator.engine.fusion import compute_step
from weakcell.emulator.engine.layer_functions import to_channels_last, to_onnx_order
from weakcell.emulator.plan.parameters import fault_free_parameters
from weakcell.emulator.plan.plan import Plan
from weakcell.host.board.errors import BoardError, LinkError
from weakcell.host.board.inference.program import BoardNetwork, Program, write_program
from weakcell.host.board.inference.resident import ResidentBoard
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import PAGE, Capability

T = TypeVar("T")
Array = npt.NDArray[Any]

_ATTEMPTS = 3
_CHUNK = 256
_CORE_HZ, _INSTRUCTIONS_PER_WORD, _MARGIN = 48e6, 60, 4


def check_capability(link: Link) -> None:
    """Raise BoardError if the firmware of a board cannot compute a network."""
    board = link.board
    if board.can(Capability.INFER):
        return
    flash = board.can(Capability.FROM_FLASH)
    found = "its firmware is older than the command for it" if flash else "it runs a RAM image, which has no room for it"
    do = "Flash the flash image of this version: weakcell firmware flash (virtual boards: virtual:CHIP-flash or virtual:CHIP-usb)"
    raise BoardError(f"Computing on the {board.chip}", found, do)


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A program in the arena, behind the weights.

    Attributes:
        link: the board.
        found: the network.
        program: its program.
    """

    link: Link
    found: BoardNetwork
    program: Program

    @classmethod
    def load(cls, link: Link, found: BoardNetwork, first_words: Mapping[str, int], free_page: int) -> LoadedNetwork:
        """Write the program of a network at nominal voltage, and check it.

        Args:
            link: the board.
            found: the network.
            first_words: the first word of 32 bits of each weight tensor in the arena.
            free_page: the first page behind the weights.

        Raises:
            BoardError: the firmware cannot compute networks, the arena is too small, or the program was not stored as written.
        """
        check_capability(link)
        program, board = write_program(found, first_words, free_page), link.board
        if program.pages > board.pages:
            raise BoardError(
                f"Computing {found.network.name} on the {board.chip}",
                f"weights, thresholds and activations take {program.pages * PAGE / 1024:.0f} KiB, and the arena has "
                f"{board.pages * PAGE / 1024:.0f} KiB",
                "Take a board with more SRAM, or leave out --compute board",
            )
        loaded = cls(link, found, program)
        loaded.write()
        return loaded

    def write(self) -> None:
        """Write the program and check it."""
        first, data = self.program.page, self.program.data
        pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        self.link.write_pages(range(first, first + len(pages)), pages)
        if self.link.page_crcs(first, len(pages)) != [zlib.crc32(page) for page in pages]:
            raise BoardError(
                "Writing a program at nominal voltage", "the board's CRCs differ from what was written", "Reset the board"
            )

    def compute(self, integers: Array) -> npt.NDArray[np.int32]:
        """Return the sums of one image, flat; integers: the input less its zero point, in C order.

        Raises:
            BoardError: the board's answer contradicts itself.
        """
        program, data = self.program, self.program.pack_input(integers)
        pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        self.link.write_pages(range(program.input_page, program.input_page + len(pages)), pages)
        crc = zlib.crc32(program.words.tobytes())
        winner, reply = self.link.infer(program.page, program.words.size, crc, self.seconds)
        sums = np.frombuffer(reply, "<i4").astype(np.int32)
        if sums.size != prod(self.found.sums.shape) or winner != int(np.argmax(sums)):
            found = f"class {winner} and {sums.size} sums, whose largest is number {int(np.argmax(sums))}"
            raise BoardError("An inference on the board", found, "Nothing was counted; reset the board")
        return sums

    @property
    def seconds(self) -> float:
        """How long one image may take, in s. From the words of weights that are looked at, generously."""
        values, words = self.found.network.values, 0
        for stage in self.found.stages:
            outputs, *inputs = self.found.network.tensors[stage.product.weight].shape
            each = prod(inputs) if values[stage.product.inputs[0]].kind == "codes" else -(-prod(inputs) // 32)
            positions = prod(values[stage.product.output].shape[1:]) or 1
            words += positions * (outputs * each + prod(inputs))
        return 0.1 + _MARGIN * _INSTRUCTIONS_PER_WORD * words / _CORE_HZ


@dataclass(eq=False)
class BoardComputer:
    """Computes the outputs of one trial on the board that holds its weights.

    Attributes:
        plan: the compiled network.
        found: the part of it that the board computes.
        memory: the board, which holds the weights after the first read.
        inputs: of all images, in physical form.
    """

    plan: Plan
    found: BoardNetwork
    memory: ResidentBoard
    inputs: Mapping[str, Array]

    def outputs(self, expected: Iterator[dict[str, Array]]) -> Iterator[dict[str, Array]]:
        """Yield the board's outputs, chunk by chunk, in physical form.

        Args:
            expected: the emulator's outputs on what the board read back; the first one makes the board read.

        Raises:
            BoardError: an output differs, or the weights changed meanwhile.
            LinkError: bytes were lost, after all retries.
        """
        first, loaded = 0, None
        for chunk in expected:
            images = len(next(iter(chunk.values())))
            if loaded is None:
                loaded = self._repeat(self._load, lambda: None)
            integers = self._integers(first, images)
            sums = np.empty((images, prod(self.found.sums.shape)), np.int32)
            for image in range(images):
                sums[image] = self._repeat(partial(loaded.compute, integers[image]), loaded.write)
            computed = self._finish(sums.reshape(images, *self.found.sums.shape), images)
            self._compare(computed, chunk, first)
            self.memory.session.counters.images_computed += images
            first += images
            yield computed
        if loaded is not None:
            self._check_weights()

    def _load(self) -> LoadedNetwork:
        memory = self.memory
        return LoadedNetwork.load(memory.session.link, self.found, memory.first_words(), memory.pages)

    def _repeat(self, action: Callable[[], T], restore: Callable[[], None]) -> T:
        """Return what an action returns; after a broken link again, if the cells still hold what was read back.

        Args:
            action: what to do.
            restore: brings back what a reset may have damaged, before another attempt.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if attempt > 1:
                    self._check_weights()
                    restore()
                return action()
            except LinkError:
                self.memory.session.counters.broken_passes += 1
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError

    def _check_weights(self) -> None:
        """Raise BoardError unless the cells hold what was read back."""
        data = self.memory.readback[0].astype("<u8").tobytes()
        expected = [zlib.crc32(data[at : at + PAGE]) for at in range(0, len(data), PAGE)]
        if self.memory.session.link.page_crcs(0, len(expected)) != expected:
            self.memory.session.counters.device_errors += 1
            raise BoardError(
                "The weights in the board, after images were computed",
                "they are not those that were read back",
                "Nothing of this trial was counted; was the board reset? Repeat the command",
            )

    def _integers(self, first: int, images: int) -> Array:
        """Return what the first stage reads of some images: integers less their zero point, in C order."""
        network, spec = self.plan.network, self.found.input
        head = network.layers[: network.layers.index(self.found.stages[0].product)]
        inputs = {name: x[first : first + images] for name, x in self.inputs.items()}
        parameters = fault_free_parameters(self.plan)
        values = run_layers(inputs, [spec.name], head, _CHUNK, lambda layer, x, _: compute_step(layer, x, parameters))
        codes = np.concatenate([part[spec.name] for part in values])
        return to_onnx_order(codes.astype(np.int32) - spec.zero_point, spec)

    def _finish(self, sums: npt.NDArray[np.int32], images: int) -> dict[str, Array]:
        """Compute the layers behind the last sums, as the emulator does."""
        outputs, parameters = self.plan.network.outputs, fault_free_parameters(self.plan)
        known = {self.found.sums.name: to_channels_last(sums, self.found.sums)}
        values = run_layers(known, outputs, self.found.tail, max(images, 1), lambda layer, x, _: compute_step(layer, x, parameters))
        return next(iter(values))

    def _compare(self, computed: Mapping[str, Array], expected: Mapping[str, Array], first: int) -> None:
        for name, theirs in expected.items():
            ours = computed[name]
            if ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes():
                continue
            different = np.flatnonzero((ours != theirs).reshape(len(theirs), -1).any(axis=1))
            image = int(different[0]) if different.size else 0
            self.memory.session.counters.device_errors += 1
            raise BoardError(
                f"Image {first + image} on the board",
                f"its outputs are {ours[image].reshape(-1)[:10]}, the emulator's on what the board read back "
                f"{theirs[image].reshape(-1)[:10]}",
                "Nothing of this trial was counted; repeat the command, and report it if it happens again",
            )
