"""install.py, and the targets of the Makefile that call it: real environments of small packages."""

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

import install
from tests.support.paths import ROOT
from tests.support.ports import free_port

BACK_END = r"""
import pathlib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    about = "small-1.0.dist-info"
    files = {
        "small.pth": str(pathlib.Path.cwd()),
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    with zipfile.ZipFile(pathlib.Path(folder) / "small-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "small-1.0-py3-none-any.whl"
"""
PROJECT = """
[build-system]
requires = []
build-backend = "back_end"
backend-path = ["."]
[project]
name = "small"
version = "1.0"
dependencies = []
[project.optional-dependencies]
api = ["served"]
worker = ["torch"]
cli = []
otel = []
embedded-redis = []
dev = ["tested"]
"""


def _wheel(folder: Path, name: str, version: str) -> str:
    """Write a package with one module; the SHA-256 of its wheel."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{about}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{about}/RECORD": record}.items():
            wheel.writestr(file, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Clone:
    """A small project with this Makefile and install.py, in a folder with a space in its name."""

    folder: Path
    wheels: Path

    def make(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run make without a package index."""
        kept = {
            name: value
            for name, value in os.environ.items()  # noqa: TID251 - a child's
            if not name.startswith(("PIP_", "MAKE", "TORCH_"))
        }
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.wheels.as_uri()}
        return subprocess.run(
            ["make", f"PYTHON={sys.executable}", *arguments],
            cwd=self.folder,
            env={**kept, **offline, "PIP_CONFIG_FILE": os.devnull, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def packages(self) -> Path:
        (packages,) = self.folder.glob(".venv/lib/python*/site-packages")
        return packages

    def has(self, name: str) -> bool:
        return (self.packages / f"{name}.py").exists()

    def forget_torch(self) -> None:
        for folder in self.packages.glob("torch-*.dist-info"):
            shutil.rmtree(folder)
        (self.folder / ".venv/.runtime").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone after `make install`; the tests below follow one another."""
    top = tmp_path_factory.mktemp("install")
    one = Clone(top / "a clone", top / "wheels")
    one.wheels.mkdir()
    (one.folder / "docker").mkdir(parents=True)
    for name in ("Makefile", "install.py", "docker/requirements.py"):
        shutil.copy(ROOT / name, one.folder / name)
    (one.folder / "back_end.py").write_text(BACK_END)
    (one.folder / "pyproject.toml").write_text(PROJECT)
    _wheel(one.wheels, "torch", "9.9")
    (one.folder / "constraints.txt").write_text("# a\ntorch==9.9\n")
    entries = [
        f"{name}==1.0 \\\n    --hash=sha256:{_wheel(one.wheels, name, '1.0')}\n    # via small\n"
        for name in ("served", "tested")
    ]
    (one.folder / "requirements.lock").write_text("# a\n# b\n" + "".join(entries))
    done = one.make("install")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installing torch==9.9\n" in done.stdout
    return one


def test_the_service_is_installed_first_and_the_tests_on_top(clone: Clone) -> None:
    assert [clone.has(name) for name in ("torch", "served", "tested")] == [True, True, False]
    assert not list(clone.packages.glob("__pycache__/*")), "nothing is byte-compiled"
    full = clone.make("setup")
    assert full.returncode == 0, full.stderr
    assert clone.has("tested")
    assert "the packages of the service" not in full.stdout
    for target in ("install", "setup", "install"):
        assert clone.make("-q", target).returncode == 0, target


def test_variables_of_another_environment_do_not_reach_python() -> None:
    names = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
    run = subprocess.run(
        ["make", "-s", "-f", "-", "show"],
        input="include Makefile\nshow:; @env\n",
        cwd=ROOT,
        env={**os.environ, **dict.fromkeys(names, "")},  # noqa: TID251 - a child's
        capture_output=True,
        text=True,
        check=True,
    )
    assert "PATH=" in run.stdout
    assert [name for name in names if f"\n{name}=" in run.stdout] == []


def test_after_a_new_lock_each_part_is_brought_up_to_date_when_asked_for(clone: Clone) -> None:
    (clone.folder / "requirements.lock").touch()
    assert clone.make("-q", "install").returncode == 1
    (clone.folder / ".venv/.runtime").touch()
    assert clone.make("-q", "install").returncode == 0
    planned = clone.make("-n", "setup").stdout
    assert planned.count("install.py") == planned.count("install.py --tests") == 1


def test_an_interrupted_installation_is_taken_up(clone: Clone) -> None:
    """What a killed pip leaves: a package without some files, and no stamp."""
    (clone.folder / ".venv/.runtime").unlink()
    (clone.packages / "served.py").unlink()
    (clone.packages / "served-1.0.dist-info/INSTALLER").unlink()
    again = clone.make("install")
    assert again.returncode == 0, again.stderr
    assert clone.has("served")
    assert again.stdout == "installing the packages of the service\n", "what is there stays"


def test_torch_comes_from_the_index_that_is_named_and_nothing_else_does(clone: Clone) -> None:
    clone.forget_torch()
    folder = clone.folder.parent / "torch"
    folder.mkdir()
    _wheel(folder, "torch", "9.9+cpu")
    with _index({"torch": folder}) as (url, asked):
        done = clone.make("install", PIP_NO_INDEX="", TORCH_INDEX=url)
    assert done.returncode == 0, done.stderr
    assert f"installing torch==9.9 from {url}\n" in done.stdout
    assert (clone.packages / "torch-9.9+cpu.dist-info").exists()
    assert {path.split("/")[1] for path in asked} == {"torch"}
    assert f"Looking in indexes: {url}\n" in done.stdout, "no other index is asked for torch"


def test_pip_without_a_network_says_what_to_do(clone: Clone) -> None:
    clone.forget_torch()
    nowhere = {"PIP_FIND_LINKS": "", "PIP_RETRIES": "1", "PIP_NO_INDEX": ""}
    done = clone.make("install", **nowhere, TORCH_INDEX=f"http://127.0.0.1:{free_port()}")
    assert done.returncode != 0
    last = [line for line in done.stderr.splitlines() if not line.startswith("make:")][-1]
    assert last.startswith("error: pip failed: the package index cannot be reached")
    assert "PIP_INDEX_URL" in last


def test_an_environment_whose_python_is_gone_is_built_again(clone: Clone) -> None:
    """The last test with this clone: its Python was removed or replaced by an update."""
    (clone.folder / ".venv/.runtime").touch()
    assert "install.py" not in clone.make("-n", "install").stdout
    (clone.folder / ".venv/bin/python").unlink()
    assert "install.py" in clone.make("-n", "install").stdout
    assert not install.is_usable(clone.folder / ".venv/bin/python")


# -- the index for torch ---------------------------------------------------------------------


@contextlib.contextmanager
def _index(folders: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """A package index on loopback: its URL, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            _, name, *file = unquote(self.path).split("/")
            folder = folders.get(name)
            if folder is None:
                self.send_error(404)
                return
            names = [one.name for one in folder.iterdir()]
            links = "".join(f'<a href="{quote(one)}">{one}</a>' for one in names)
            body = (folder / file[0]).read_bytes() if file and file[0] else links.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have builds for CPUs only"
)


@linux_only
def test_without_a_driver_torch_is_a_build_for_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = tmp_path / "driver"
    with _index({"torch": tmp_path}) as (url, asked):
        monkeypatch.setattr(install, "CPU_INDEX", url)
        monkeypatch.setattr(install, "NVIDIA_DRIVER", ("/no/such/file", str(driver)))
        assert install.torch_index({}, has_own_index=False) == url
        assert asked == ["/torch/"]
        assert install.torch_index({}, has_own_index=True) is None
        for named, index in (("", None), (" ", None), ("https://x.test", "https://x.test")):
            assert install.torch_index({"TORCH_INDEX": named}, has_own_index=False) == index
        driver.touch()
        assert install.torch_index({}, has_own_index=False) is None
        assert asked == ["/torch/"], "only the first one asks"
    assert capsys.readouterr() == ("", "")


def test_an_index_of_the_users_choice_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As companies set it, for all their machines."""
    for name in ("PIP_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    pip_conf = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(pip_conf))
    pip_conf.write_text("[global]\nextra-index-url = https://x.test/simple\n")
    assert not install.has_own_index(Path(sys.prefix))
    pip_conf.write_text("[global]\nindex-url = https://x.test/simple\n")
    assert install.has_own_index(Path(sys.prefix))


@linux_only
def test_an_index_that_cannot_be_reached_is_told_with_what_follows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(install, "CPU_INDEX", nowhere)
    monkeypatch.setattr(install, "NVIDIA_DRIVER", ())
    assert install.torch_index({}, has_own_index=False) is None
    said = capsys.readouterr().err
    assert said.startswith(f"{nowhere} cannot be reached (")
    assert "3 GB to download" in said
    assert "TORCH_INDEX=<index>" in said


def test_an_index_that_does_not_answer_is_not_waited_for() -> None:
    """Each of its bytes comes in time; the whole does not."""
    told = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.0 200 OK\r\nX-Long: ")
            for _ in range(200):
                if told.wait(0.01):
                    return
                connection.sendall(b"x")
            connection.sendall(b"\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip)
        dripping.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert install.why_unreachable(url, 0.5) in ("no answer in 0 s", "timed out")
        told.set()
        dripping.join()


def test_an_index_that_refuses_is_not_used() -> None:
    with _index({}) as (url, _):
        assert install.why_unreachable(url) == "HTTP 404"


# -- wrong machines --------------------------------------------------------------------------


def test_an_old_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    with pytest.raises(install.SetupError, match=r"Python 3\.11 or newer is needed"):
        install.check_python()


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """As Debian splits it."""
    monkeypatch.setattr(install, "find_spec", lambda name: None if name == module else object())
    with pytest.raises(install.SetupError, match=r"apt install python3\.\d+-venv"):
        install.check_python()


def test_a_full_disk_is_told_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "is_usable", lambda python: True)
    monkeypatch.setattr(install, "_require_pip", lambda python: None)
    with pytest.raises(install.SetupError, match=r"GB free, and the packages take 1000000 GB"):
        install.prepare(tmp_path, 1e6)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(install.SetupError, match="cannot be written: Not a directory"):
        install.prepare(tmp_path / "file/.venv", 0)


@pytest.mark.parametrize(
    ("errors", "meaning"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ProxyError('Cannot connect to proxy.', OSError())", "look at HTTPS_PROXY"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("NewConnectionError: Temporary failure in name resolution", "cannot be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS", "changed it"),
        ("[Errno 13] Permission denied: '/x'", "cannot be written"),
        ("ERROR: No matching distribution found for torch==2.13.0", "PYTHON=python3.11"),
        ("ERROR: something else", "the same command goes on from here"),
    ],
)
def test_errors_of_pip_get_a_meaning(errors: str, meaning: str) -> None:
    assert meaning in install.cause(errors)


def test_ci_asks_for_no_index() -> None:
    """An empty TORCH_INDEX means pip's default."""
    text = (ROOT / ".ci/run").read_text(encoding="utf-8")
    exported = next(line for line in text.splitlines() if line.startswith("export TORCH_INDEX"))
    script = f"set -u; unset TORCH_INDEX; {exported}; env"
    shown = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert "\nTORCH_INDEX=\n" in f"\n{shown}"
    assert text.index(exported) < text.index("make ")
