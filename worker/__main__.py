"""`python -m worker`."""

from worker.start_up import end_on_interrupt, long_lived

with long_lived():
    end_on_interrupt()  # until the control loop handles it
    from worker.runtime.main import main

if __name__ == "__main__":
    main()
