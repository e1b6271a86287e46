"""`python -m worker`."""

from worker.start_up import long_lived

with long_lived():
    from worker.runtime.main import main

if __name__ == "__main__":
    main()
