"""`python -m weakcell` runs the command line."""

from weakcell.host.cli import main

main()
