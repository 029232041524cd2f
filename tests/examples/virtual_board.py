"""What will `weakcell characterize` do to my board, before I connect one?

A virtual board runs the same firmware image in an emulated chip. Its cells flip as a memory model says, so the measurement can be
compared with the truth.
"""

from tempfile import TemporaryDirectory

import weakcell


def main() -> weakcell.Characterization:
    """Return the measured error rates of a virtual RP2350."""
    with TemporaryDirectory() as folder:
        board = weakcell.characterize(
            folder, port="virtual:rp2350", memory="sram-28nm-vc707", vdd=[0.6, 0.55], dwell_ms=1.0, repeats=1, kib=16
        )
        print(board)
        print(board.summary)
    return board


if __name__ == "__main__":
    main()
