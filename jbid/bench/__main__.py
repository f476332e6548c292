"""`python -m jbid.bench`."""

from jbid.runtime.memory import tune_malloc

if __name__ == "__main__":
    tune_malloc()

    from jbid.bench.cli import main

    raise SystemExit(main())
