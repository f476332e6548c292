"""`python -m jbid` and the console script `jbid`."""

from jbid.runtime.memory import tune_malloc


def entry_point() -> int:
    """Run the command line in a process with a tuned allocator."""
    tune_malloc()
    from jbid.cli.main import main

    return main()


if __name__ == "__main__":
    raise SystemExit(entry_point())
