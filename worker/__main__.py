"""`python -m worker`."""

from worker.runtime.main import main

if __name__ == "__main__":
    main()
