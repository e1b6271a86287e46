"""Entry point of `python -m api`."""

from worker.start_up import long_lived

with long_lived():  # the libraries, too
    from api.server import main

if __name__ == "__main__":
    main()
