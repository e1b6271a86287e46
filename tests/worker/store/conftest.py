"""Gives each test an empty prefix of the S3 server's bucket."""

from uuid import uuid4

import pytest

from tests.support.s3_server import S3Server
from worker.store.s3 import Bucket


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    return s3_server.bucket(f"test/{uuid4().hex}")
