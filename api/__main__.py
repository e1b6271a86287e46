"""Entry point of `python -m api`."""

from worker.start_up import end_on_interrupt, long_lived

with long_lived():  # the libraries, too
    end_on_interrupt()  # until the server handles it
    from api.server import main

if __name__ == "__main__":
    main()
