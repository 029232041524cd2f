"""`python -m host.cli` is `weakcell`."""

from host.cli import main

main()
