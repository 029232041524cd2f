"""Say why a serial port does not open, and what to do about it on this system."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from weakcell.host.board.errors import BoardError

UDEV_FILE = "/etc/udev/rules.d/70-weakcell.rules"


def explain_port_error(url: str, error: BaseException, present: list[str]) -> BoardError:
    """Return the error of a port that does not open.

    Args:
        url: the port that was asked for.
        error: what pyserial or the system reported.
        present: names of the USB serial ports of this system.
    """
    asked, code = f"Opening {url}", getattr(error, "errno", None)
    if url.startswith("socket://"):
        do = "Start a board there (weakcell board serve), or check host, port and firewall"
        return BoardError(asked, str(error), do)
    if code == errno.EACCES or "PermissionError" in str(error):
        return _refused(asked, url)
    if code == errno.EBUSY or "exclusively lock" in str(error):
        return BoardError(asked, "another program has it open", "Close that program: a serial monitor, or another weakcell")
    if code == errno.ENOENT or "FileNotFoundError" in str(error):
        found = f"there is no such port; USB serial ports here: {', '.join(present) or 'none'}"
        do = f"Use --port {present[0]}" if present else "Plug the adapter in; weakcell board list shows what is there"
        return BoardError(asked, found, do)
    return BoardError(asked, str(error), "Check the name and the cable; weakcell board list shows what is there")


def _refused(asked: str, url: str) -> BoardError:
    if sys.platform == "win32":
        return BoardError(
            asked, "Windows refuses it: another program has it open", "Close that program, or plug the adapter in again"
        )
    if sys.platform == "darwin":
        return BoardError(asked, "you may not use it", f"Use the name that begins with /dev/cu., and check ls -l {url}")
    group = group_of(Path(url))
    found = f"you may not use it; it belongs to the group {group}"
    return BoardError(asked, found, f"Run sudo usermod -aG {group} $USER and log in again, or write {udev_rule()} into {UDEV_FILE}")


def group_of(path: Path) -> str:
    """Return the name of a port's group; `dialout`, as on most systems, if it cannot be found."""
    try:
        import grp

        return grp.getgrgid(os.stat(path).st_gid).gr_name
    except (ImportError, OSError, KeyError):
        return "dialout"


def udev_rule() -> str:
    """Return a udev rule that gives USB serial ports to whoever sits at the computer."""
    return '\'SUBSYSTEM=="tty", SUBSYSTEMS=="usb", TAG+="uaccess"\''
