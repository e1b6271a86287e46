"""`python -m tests.policy_figures CSV…` prints what the policy finds in lists of tags."""

import sys

from tests.tools.policy_figures import main

if __name__ == "__main__":
    sys.exit(main())
