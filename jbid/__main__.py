"""`python -m jbid`."""

from jbid.runtime.memory import tune_malloc

if __name__ == "__main__":
    tune_malloc()

    from jbid.cli.main import main

    raise SystemExit(main())
