"""The policy that all tests of it share."""

import pytest

from model.policy.policy import Policy, load_policy


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_policy()
