"""`kirazuri checkpoint` as a user runs it: real files, a real client, a hub on this machine."""

import hashlib
import json
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cli.main import app
from model.card import Card, load_card, shipped_folder
from tests.support.cli import kirazuri
from tests.support.every_layout import LAYOUTS, MAIN, QWEN, VAE, all_in_one, library_folder
from tests.support.hub import FakeHub, running_hub
from tests.support.paths import ROOT

CARD = load_card("kirazuri-tiny")
SHIPPED = shipped_folder(CARD)
TINY = ("--card", "kirazuri-tiny")


def run(*arguments: str | Path) -> tuple[int, str]:
    shown = CliRunner().invoke(app, ["checkpoint", *map(str, arguments)])
    return shown.exit_code, shown.output


def inspected(*arguments: str | Path) -> dict[str, Any]:
    code, output = run("inspect", *arguments, *TINY, "--json")
    report: dict[str, Any] = json.loads(output)
    assert code == bool(report["problems"])
    return report


# -- inspect -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_told(layout: str, tmp_path: Path) -> None:
    write, _ = LAYOUTS[layout]
    write(tmp_path)
    report = inspected(tmp_path if (tmp_path / MAIN).is_file() else _root(tmp_path))
    assert report["problems"] == []
    parts = {part["name"]: part for part in report["parts"]}
    assert list(parts) == ["transformer", "conditioner", "text_encoder", "vae"]
    assert (parts["transformer"]["blocks"], parts["transformer"]["width"]) == (6, 192)
    assert (parts["text_encoder"]["blocks"], parts["text_encoder"]["width"]) == (2, 128)
    assert parts["conditioner"]["blocks"] == 2
    assert parts["transformer"]["parameters"] == 3_584_064
    assert parts["vae"]["parameters"] == 1_566_371
    assert parts["vae"]["dtypes"] == {"BF16": 148}
    assert report["missing"] == []
    if "prefix" in layout:
        assert f"prefix {parts['transformer']['prefix']!r}" in layout
    if "folder" in layout:
        assert report["kind"] == "diffusers folder"
        assert parts["transformer"]["layout"] == "library"


def _root(folder: Path) -> Path:
    return folder / MAIN if (folder / MAIN).is_dir() else folder


def test_a_report_to_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    origin = {
        "modelspec.title": "Mine",
        "ss_base_model_version": "anima",
        "modelspec.thumbnail": "data:" + "x" * 9999,
    }
    save_file(load_file(SHIPPED / MAIN), path, metadata=origin)
    code, output = run("inspect", path, *TINY)
    assert code == 0
    assert f"{path}: transformer, text adapter" in output
    assert "4,024,512 parameters in 169 tensors, BF16" in output
    assert (
        "original names, prefix 'net.', 3,584,064 parameters, BF16, 6 blocks, width 192" in output
    )
    assert f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in output
    assert "modelspec.title: Mine\n  ss_base_model_version: anima" in output
    assert "thumbnail" not in output
    assert f"missing: text encoder: kirazuri-tiny expects it at {QWEN}" in output
    assert f"missing: VAE: kirazuri-tiny expects it at {VAE}" in output
    assert output.count("missing: tokenizer") == 2
    assert "sha256" not in run("inspect", path, *TINY, "--no-hash")[1]


def test_an_all_in_one_file_lacks_tokenizers_only(tmp_path: Path) -> None:
    all_in_one(tmp_path)
    report = inspected(tmp_path / MAIN)
    assert report["kind"].startswith("all-in-one checkpoint")
    assert [missing.split(":")[0] for missing in report["missing"]] == ["tokenizer"] * 2


@pytest.mark.parametrize(("path", "kind"), [(QWEN, "text encoder"), (VAE, "VAE")])
def test_single_parts_are_told(path: str, kind: str) -> None:
    assert inspected(SHIPPED / path)["kind"] == kind


@pytest.mark.parametrize(
    ("tensors", "kind", "problem"),
    [
        ({"net.blocks.0.mlp.layer1.weight": torch.float8_e4m3fn}, "quantised", "is quantised"),
        ({"net.blocks.0.mlp.layer1.scale_weight": torch.float32}, "quantised", "is quantised"),
        ({"net.blocks.7.mlp.layer1.weight": torch.bfloat16}, "transformer", "lacks net.blocks.6."),
        ({"unet.weight": torch.bfloat16}, "transformer", "unknown unet.weight"),
    ],
)
def test_what_keeps_a_file_from_use_is_told(
    tensors: dict[str, torch.dtype], kind: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    weights = load_file(SHIPPED / MAIN)
    save_file(weights | {k: torch.ones(2).to(dtype) for k, dtype in tensors.items()}, path)
    report = inspected(path)
    assert report["kind"].startswith(kind)
    assert problem in " ".join(report["problems"])


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for name in ("net.blocks.3.mlp.layer2.weight", "net.llm_adapter.norm.weight"):
        weights = load_file(SHIPPED / MAIN)
        del weights[name]
        save_file(weights, path)
        assert f"lacks {name}" in inspected(path)["problems"][0]


def test_a_lora_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    half = {
        "lora_unet_blocks_0_mlp_layer1.lora_down.weight": torch.ones(4, 8),
        "lora_unet_blocks_0_mlp_layer1.alpha": torch.tensor(4),
    }
    whole = half | {"lora_unet_blocks_0_mlp_layer1.lora_up.weight": torch.ones(8, 4)}
    origin = {"ss_base_model_version": "anima\x1b[31m", "ss_network_dim": "4"}
    save_file(whole, path, metadata=origin)
    report = inspected(path)
    assert (report["kind"], report["missing"], report["problems"]) == ("LoRA", [], [])
    assert report["lora"] == {"method": "lora", "rank": 4, "parts": ["transformer"]}
    assert report["origin"] == origin
    code, output = run("inspect", path, *TINY)
    assert code == 0
    assert "\n  lora of rank 4 for transformer\n" in output
    assert "\x1b" not in output
    save_file(half, path)
    assert "lora_unet_blocks_0_mlp_layer1" in inspected(path)["problems"][0]


def test_pickles_and_other_files_are_refused(tmp_path: Path) -> None:
    pickled = tmp_path / "a.ckpt"
    pickled.write_bytes(pickle.dumps({"a": 1}))
    hidden = tmp_path / "b.safetensors"
    hidden.write_bytes(pickled.read_bytes())
    for path, said in (
        (pickled, "pickle"),
        (hidden, "pickle"),
        (tmp_path / "none.safetensors", "does not exist"),
    ):
        report = inspected(path)
        assert report["kind"] == "refused"
        assert said in report["problems"][0]
        code, output = run("inspect", path, *TINY)
        assert code == 1
        assert said in output


def test_nothing_here_loads_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from cli.main import app; "
        "import cli.checkpoint_files; "
        f"run = CliRunner().invoke(app, ['checkpoint', 'inspect', {str(SHIPPED)!r}]); "
        "assert run.exit_code == 0, run.output; "
        f"run = CliRunner().invoke(app, ['checkpoint', 'convert', {str(SHIPPED / MAIN)!r}, 'x']); "
        "assert run.exit_code == 0, run.output; "
        "print({'torch', 'numpy', 'safetensors', 'transformers'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True,
        env={"PYTHONPATH": str(ROOT), "KIRAZURI_CARD": "kirazuri-tiny"},
    )  # fmt: skip
    assert ran.stdout.strip() == "set()"


# -- convert -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_published_files(layout: str, tmp_path: Path) -> None:
    write, _ = LAYOUTS[layout]
    write(tmp_path / "source")
    root = _root(tmp_path / "source")
    sources = [root] if (root / "modular_model_index.json").is_file() else [root / MAIN]
    sources += [root / own for own in (QWEN, VAE) if (root / own).is_file()]
    for source in sources:
        code, output = _convert(source, tmp_path / "target")
        assert code == 0, output
    for file in (MAIN, QWEN, VAE):
        mine, theirs = load_file(tmp_path / "target" / file), load_file(SHIPPED / file)
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    if "folder" in layout:
        for own in (CARD.files.qwen_tokenizer, CARD.files.t5_tokenizer):
            assert (tmp_path / "target" / own / "tokenizer.json").is_file()
    assert not list((tmp_path / "target").rglob("*.part"))


def _convert(source: Path, target: Path) -> tuple[int, str]:
    return run("convert", source, target, *TINY)


def test_into_a_file_goes_the_transformer(tmp_path: Path) -> None:
    all_in_one(tmp_path)
    target = tmp_path / "mine.safetensors"
    code, output = _convert(tmp_path / MAIN, target)
    assert (code, output) == (0, f"{target}  transformer and text adapter\n")
    assert set(load_file(target)) == set(load_file(SHIPPED / MAIN))
    code, output = _convert(tmp_path / MAIN, target)
    assert code == 1
    assert "exists already" in output


def test_the_masks_channel_is_put_back(tmp_path: Path) -> None:
    narrow = load_file(SHIPPED / MAIN)
    key = "net.x_embedder.proj.1.weight"
    narrow[key] = narrow[key][:, :64].contiguous()
    save_file(narrow, tmp_path / "narrow.safetensors", metadata={"modelspec.title": "Narrow"})
    assert _convert(tmp_path / "narrow.safetensors", tmp_path / "wide.safetensors")[0] == 0
    wide = load_file(tmp_path / "wide.safetensors")
    assert wide[key].shape == (192, 68)
    assert torch.equal(wide[key][:, :64], narrow[key])
    assert not wide[key][:, 64:].any()
    assert torch.equal(
        wide["net.final_layer.linear.weight"], narrow["net.final_layer.linear.weight"]
    )
    assert inspected(tmp_path / "wide.safetensors")["origin"] == {"modelspec.title": "Narrow"}


def test_what_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    library_folder(tmp_path / "folder")
    weights = tmp_path / "folder/transformer/diffusion_pytorch_model.safetensors"
    save_file(load_file(weights) | {"transformer_blocks.0.extra.weight": torch.ones(1)}, weights)
    for source, said in (
        (tmp_path / "folder", "unknown transformer_blocks.0.extra.weight"),
        (tmp_path / "none.safetensors", "no weight file"),
    ):
        code, output = _convert(source, tmp_path / "target")
        assert code == 1
        assert said in output
    code, output = run("convert", SHIPPED / VAE, tmp_path / "a.safetensors", *TINY)
    assert code == 1
    assert "no transformer" in output
    assert not (tmp_path / "target").exists()


# -- fetch -------------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub() as running:
        for name in (QWEN, VAE):
            running.files[f"lab/small/split_files/{name}"] = (SHIPPED / name).read_bytes()
        for mine, theirs in (("tokenizer", "qwen3"), ("t5_tokenizer", "t5")):
            content = (SHIPPED / "tokenizers" / theirs / "tokenizer.json").read_bytes()
            running.files[f"lab/folder/{mine}/tokenizer.json"] = content
            running.files[f"lab/folder/{mine}/README.md"] = b"not needed"
        yield running


@pytest.fixture
def card_file(tmp_path: Path) -> Path:
    return write_card(tmp_path)


def write_card(folder: Path, **sha256: str) -> Path:
    """The small checkpoint's card with sources and checksums."""

    def weights(name: str, path: str) -> str:
        digest = sha256.get(name) or hashlib.sha256((SHIPPED / path).read_bytes()).hexdigest()
        return (
            f'[files.{name}]\npath = "{path}"\nsha256 = "{digest}"\n'
            f'[files.{name}.source]\nrepo = "lab/small"\npath = "split_files/{path}"\n'
        )

    text = (ROOT / "model/cards/kirazuri-tiny.toml").read_text()
    before, _, rest = text.partition("[files.text_encoder]")
    _, _, after = rest.partition("[transformer]")
    before = before.replace('name = "kirazuri-tiny"', 'name = "small"', 1)
    before = before.replace(f'path = "{MAIN}"', f'path = "{MAIN}"\nnote = "Ask its authors."')
    tokenizers = "".join(
        f'[files.{name}_source]\nrepo = "lab/folder"\npath = "{path}"\n'
        for name, path in (("qwen_tokenizer", "tokenizer"), ("t5_tokenizer", "t5_tokenizer"))
    )
    path = folder / "small.toml"
    path.write_text(
        f"{before}{weights('text_encoder', QWEN)}{weights('vae', VAE)}{tokenizers}"
        f"[transformer]{after}"
    )
    assert Card.model_validate(load_card(str(path)).model_dump()).files.vae.source
    return path


def fetch(hub: FakeHub, card: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    folder = card.parent
    return kirazuri(
        "checkpoint", "fetch", str(card), "--checkpoint-dir", str(folder / "files"), *options,
        folder=folder, HF_ENDPOINT=hub.url, HF_HOME=str(folder / "home"),
    )  # fmt: skip


def test_everything_is_fetched_and_the_rest_is_said(hub: FakeHub, card_file: Path) -> None:
    files = card_file.parent / "files"
    first = fetch(hub, card_file, "--accept-licence")
    assert first.returncode == 1, first.stderr
    assert "Licence: MIT" in first.stdout
    for name in (QWEN, VAE):
        assert (files / name).read_bytes() == (SHIPPED / name).read_bytes()
    for own in ("qwen3", "t5"):
        fetched = [path.name for path in (files / "tokenizers" / own).iterdir()]
        assert fetched == ["tokenizer.json"]
    assert "missing transformer and text adapter" in first.stdout
    assert f"Ask its authors.\n        Put it at {files / MAIN}" in first.stdout

    (files / MAIN).parent.mkdir()
    shutil.copy(SHIPPED / QWEN, files / MAIN)
    wrong = fetch(hub, card_file)
    assert wrong.returncode == 1
    assert f"{files / MAIN} is text encoder; it has no transformer, text adapter" in wrong.stderr
    shutil.copy(SHIPPED / MAIN, files / MAIN)
    asked = len(hub.asked)
    second = fetch(hub, card_file)
    assert second.returncode == 0, second.stderr
    assert len(hub.asked) == asked, "nothing is downloaded again, no licence is asked about"
    digest = hashlib.sha256((SHIPPED / MAIN).read_bytes()).hexdigest()
    assert f"(transformer, text adapter, sha256 {digest})" in second.stdout
    assert "Everything is there" in second.stdout


def test_what_other_layouts_hold_is_not_fetched(hub: FakeHub, card_file: Path) -> None:
    files = card_file.parent / "files"
    all_in_one(files, parts=("vae",))
    (files / QWEN).unlink()
    run = fetch(hub, card_file, "--accept-licence")
    assert run.returncode == 0, run.stderr
    assert "there   VAE: in the file of the transformer" in run.stdout
    assert not (files / VAE).exists()
    fetched = {path for verb, path, _ in hub.asked if verb == "GET" and "/resolve/" in path}
    assert fetched == {f"lab/small/resolve/main/split_files/{QWEN}"}
    shutil.rmtree(files)
    library_folder(files)
    run = fetch(hub, card_file)
    assert run.returncode == 0, run.stderr
    assert "diffusers folder with everything in it" in run.stdout
    shutil.rmtree(files / "vae")
    assert "VAE: small expects it at" in fetch(hub, card_file).stderr


def test_without_consent_nothing_is_fetched(hub: FakeHub, card_file: Path) -> None:
    run = fetch(hub, card_file)
    assert run.returncode == 1
    assert "--accept-licence" in run.stderr
    assert hub.asked == []


def test_a_broken_download_goes_on_in_another_process(hub: FakeHub, tmp_path: Path) -> None:
    content = random.Random(0).randbytes(25_000_000)
    hub.files[f"lab/small/split_files/{QWEN}"] = content
    card = write_card(tmp_path, text_encoder=hashlib.sha256(content).hexdigest())
    fetched = tmp_path / "files" / QWEN
    hub.breaks_after = 15_000_000
    broken = fetch(hub, card, "--accept-licence")
    assert broken.returncode == 1
    assert "error: text encoder: lab/small" in broken.stderr
    assert not fetched.exists()
    (partial,) = fetched.parent.iterdir()
    done = partial.stat().st_size
    assert 10_000_000 < done <= 15_000_000
    hub.breaks_after, hub.is_away = None, False
    hub.asked.clear()
    fetch(hub, card, "--accept-licence")
    ranges = [asked for verb, path, asked in hub.asked if verb == "GET" and QWEN in path]
    assert ranges == [f"bytes={done}-"]
    assert fetched.read_bytes() == content
    assert [path.name for path in fetched.parent.iterdir()] == [Path(QWEN).name]


def test_wrong_content_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    card = write_card(tmp_path, vae="0" * 64)
    run = fetch(hub, card, "--accept-licence")
    assert run.returncode == 1
    digest = hashlib.sha256((SHIPPED / VAE).read_bytes()).hexdigest()
    assert f"has sha256 {digest}, not {'0' * 64}" in run.stderr
    assert list((tmp_path / "files" / VAE).parent.iterdir()) == []
    (tmp_path / "files" / VAE).write_bytes((SHIPPED / VAE).read_bytes())
    run = fetch(hub, card, "--accept-licence")
    assert run.returncode == 1
    assert f"has sha256 {digest}; the card says {'0' * 64}" in run.stderr


def test_a_file_that_the_hub_lacks_is_named(hub: FakeHub, card_file: Path) -> None:
    del hub.files[f"lab/small/split_files/{VAE}"]
    run = fetch(hub, card_file, "--accept-licence")
    assert run.returncode == 1
    assert f"error: VAE: lab/small/split_files/{VAE}: " in run.stderr
    assert "Traceback" not in run.stderr


def test_where_to_is_asked_for(tmp_path: Path) -> None:
    run = kirazuri("checkpoint", "fetch", "kirazuri-v1", folder=tmp_path)
    assert run.returncode == 1
    assert "--checkpoint-dir or KIRAZURI_CHECKPOINT_DIR" in run.stderr
    shipped = kirazuri("checkpoint", "fetch", "kirazuri-tiny", folder=tmp_path)
    assert shipped.returncode == 0
    assert "ships with the package" in shipped.stdout
    unknown = kirazuri("checkpoint", "inspect", "x", "--card", "none", folder=tmp_path)
    assert unknown.returncode == 1
    assert "no card named 'none'" in unknown.stderr
