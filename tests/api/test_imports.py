"""The API runs without torch and numpy, and importing it has no side effects."""

import subprocess
import sys

HEAVY = ("torch", "numpy", "scipy", "transformers", "diffusers", "safetensors")

NO_HEAVY = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
import api.main
from worker.settings import Settings
app = api.main.create_app(Settings(_env_file=None))
assert app.openapi()["paths"]
assert not set(sys.modules) & set({HEAVY!r})
"""

NO_SIDE_EFFECTS = """
import os, socket
def fail(*args, **kwargs):
    raise AssertionError("a connection at import")
socket.socket.connect = fail
os.environ["KIRAZURI_CARD"] = "no such card"
os.environ["KIRAZURI_REDIS_URL"] = "nonsense"
import api.main
"""


LAZY = """
import api.main, sys
from worker.settings import Settings
api.main.create_app(Settings(_env_file=None))
late = {"torch", "mcp", "mcp_types", "sse_starlette", "cryptography.x509"}
assert not late & set(sys.modules), late & set(sys.modules)
"""

DEFERRED = """
import api.main
from api.a1111.schemas import A1111Body
from api.http.response_model import ResponseModel
bodies = [*ResponseModel.__subclasses__(), *A1111Body.__subclasses__()]
built = [body.__name__ for body in bodies if body.__pydantic_complete__]
assert len(bodies) > 60 and len(built) < 10, built
"""


def run(code: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_api_starts_without_heavy_packages() -> None:
    run(NO_HEAVY)


def test_import_reads_no_settings_and_opens_no_connection() -> None:
    run(NO_SIDE_EFFECTS)


def test_the_api_starts_without_what_few_of_its_users_need() -> None:
    """Although it is there. The first call of `/mcp` loads its package, which takes 17 MB.

    Certificates are read if settings name some.
    """
    run(LAZY)


def test_bodies_of_responses_are_built_when_they_are_needed() -> None:
    """To build all takes a tenth of the start."""
    run(DEFERRED)
