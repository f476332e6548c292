"""`python -m jbid`."""

from jbid.allocator import keep_memory

if __name__ == "__main__":
    keep_memory()

    from jbid.cli import main

    raise SystemExit(main())
