"""The API runs where torch and numpy are not, and importing it does nothing."""

import subprocess
import sys

HEAVY = ("torch", "numpy", "scipy", "transformers", "diffusers", "safetensors")

NO_HEAVY = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import api.main
from worker.settings import Settings
app = api.main.create_app(Settings(_env_file=None))
assert app.openapi()["paths"]
assert not set(sys.modules) & set({HEAVY!r})
"""

NO_SIDE_EFFECTS = """
import os, socket
def refuse(*args, **kwargs):
    raise AssertionError("a connection at import")
socket.socket.connect = refuse
os.environ["KIRAZURI_CARD"] = "no such card"
os.environ["KIRAZURI_REDIS_URL"] = "nonsense"
import api.main
"""


def run(code: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_no_torch_after_importing_the_api() -> None:
    run("import api.main, sys; assert 'torch' not in sys.modules")


def test_the_api_starts_where_nothing_heavy_is_installed() -> None:
    run(NO_HEAVY)


def test_importing_reads_no_settings_and_connects_nowhere() -> None:
    run(NO_SIDE_EFFECTS)
