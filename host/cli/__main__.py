"""`python -m weakcell.host.cli` is `weakcell`."""

from weakcell.host.cli import main

main()
