"""The command line: `weakcell`, or `python -m weakcell`."""


def main() -> None:
    """Run the command line; Ctrl-C while it starts ends it without a traceback."""
    try:
        from weakcell.host.cli import main as run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
