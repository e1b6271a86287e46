"""Image files of other programs: what is sure is imported, the rest is noted or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from tests.support.foreign_images import (
    FIELD_IMAGES,
    imported,
    jpeg_with_comment,
    png_with,
    png_with_bytes,
    png_with_xmp,
    refusal,
    with_tag,
    with_user_comment,
)
from worker.images.metadata import ImageTexts, read_metadata

SETTINGS = {
    "prompt": "1girl, red hair",
    "negative_prompt": "lowres",
    "seed": 555,
    "steps": 28,
    "cfg_scale": 4.5,
    "sampler": "er_sde",
    "resolution": "832x1216",
}
INFOTEXT = (
    "masterpiece, 1girl, 初音ミク, café\nNegative prompt: lowres, 低画質\nSteps: 20, Sampler: "
    "Euler a, CFG scale: 4.5, Seed: 123, Size: 512x768, Model: anima-base"
)
EXPECTED: dict[str, Any] = {
    "prompt": "masterpiece, 1girl, 初音ミク, café",
    "negative_prompt": "lowres, 低画質",
    "steps": 20,
    "sampler": "euler_ancestral",
    "cfg_scale": 4.5,
    "seed": 123,
    "resolution": "512x768",
}


def test_swarmui() -> None:
    found = imported(FIELD_IMAGES / "swarmui.png")
    loras = [{"name": "style/wlop", "weight": 0.8}]
    assert found.fields == SETTINGS | {"scheduler": "simple", "loras": loras}
    assert found.model == "anima-base-v1.0"
    assert found.notes == []


def test_what_swarmui_does_beyond_one_pass_is_noted(tmp_path: Path) -> None:
    params = {
        "prompt": "1girl <alternate:a, b> <lora:ink:0.5><segment:face> smile",
        "negativeprompt": "", "seed": "5", "steps": "20", "cfgscale": "4.0", "width": "64",
        "height": "64", "sampler": "er_sde", "scheduler": "simple", "sigmashift": 5.0,
        "refinermethod": "PostApply", "refinerupscale": 1.5, "loras": "a,b", "loraweights": "1",
    }  # fmt: skip
    text = json.dumps({"sui_image_params": params})
    for path in (
        png_with(tmp_path, parameters=text),
        with_user_comment(tmp_path, b"UNICODE\0" + text.encode("utf-16-le")),
        with_tag(tmp_path, ExifTags.Base.Model, text, ".webp"),
    ):
        found = imported(path)
        assert found.fields["prompt"] == "1girl", path
        assert [lora["name"] for lora in found.fields["loras"]] == ["ink", "a", "b"]
        notes = "\n".join(found.notes)
        for piece in ("<segment:face>", "<alternate:a, b>", "shift 5.0", "refinermethod: PostApply",
                      "refinerupscale: 1.5"):  # fmt: skip
            assert piece in notes, (path, piece)


def test_invokeai(tmp_path: Path) -> None:
    lora = {"model": {"key": "k", "name": "ink", "base": "anima", "type": "lora"}, "weight": 0.75}
    metadata = {
        "generation_mode": "anima_txt2img", "positive_prompt": "1girl, red hair",
        "negative_prompt": "lowres", "width": 832, "height": 1216, "seed": 555, "steps": 28,
        "cfg_scale": 4.5, "scheduler": "er_sde", "model": {"key": "k", "name": "Anima"},
        "loras": [lora], "app_version": "6.9.0", "rand_device": "cpu",
    }  # fmt: skip
    found = imported(png_with(tmp_path, invokeai_metadata=json.dumps(metadata)))
    assert found.fields == SETTINGS | {"loras": [{"name": "ink", "weight": 0.75}]}
    assert found.model == "Anima"
    assert found.notes == ["scheduler: not in the file; the default is used"]
    older = {
        **metadata, "generation_mode": "sdxl_img2img", "positive_prompt": "a (cat)1.2",
        "scheduler": "dpmpp_2m_k", "hrf_enabled": True, "strength": 0.6,
        "loras": [{"lora": {"model_name": "hats"}, "weight": 1}],
    }  # fmt: skip
    found = imported(png_with(tmp_path, invokeai_metadata=json.dumps(older)))
    assert (found.fields["sampler"], found.fields["scheduler"]) == ("dpmpp_2m", "karras")
    assert found.fields["loras"] == [{"name": "hats", "weight": 1.0}]
    assert [note.partition(":")[0] for note in found.notes] == [
        *("prompt", "generation_mode sdxl_img2img", "hrf_enabled", "strength"),
    ]


def test_brackets_are_letters_where_a_program_reads_no_weights(tmp_path: Path) -> None:
    metadata = {"generation_mode": "anima_txt2img", "positive_prompt": "miku (vocaloid)"}
    found = imported(png_with(tmp_path, invokeai_metadata=json.dumps(metadata)))
    assert found.fields["prompt"] == "miku \\(vocaloid\\)"


def _novelai(**changes: Any) -> dict[str, str]:
    comment = {
        "prompt": "1girl, red hair", "steps": 28, "height": 1216, "width": 832, "scale": 4.5,
        "uncond_scale": 0.0, "cfg_rescale": 0.0, "seed": 555, "n_samples": 1,
        "noise_schedule": "karras", "sampler": "k_euler_ancestral", "controlnet_strength": 1.0,
        "sm": False, "uc": "lowres", "request_type": "PromptGenerateRequest",
        "v4_prompt": {"caption": {"base_caption": "1girl, red hair", "char_captions": []}},
        "signed_hash": "x", **changes,
    }  # fmt: skip
    return {
        "Title": "NovelAI generated image",
        "Software": "NovelAI",
        "Source": "NovelAI Diffusion V4.5",
        "Description": "1girl, red hair",
        "Comment": json.dumps(comment),
    }


def test_novelai(tmp_path: Path) -> None:
    found = imported(png_with(tmp_path, **_novelai()))
    assert found.fields == SETTINGS | {"sampler": "euler_ancestral", "scheduler": "karras"}
    assert found.model == "NovelAI Diffusion V4.5"
    assert found.notes == []


def test_what_only_novelai_does_is_converted_or_noted(tmp_path: Path) -> None:
    person = {"char_caption": "boy, blue hair", "centers": [{"x": 0.5, "y": 0.5}]}
    caption = {"base_caption": "{cute}, miku (vocaloid), 1.5::rain::", "char_captions": [person]}
    chunks = _novelai(
        prompt="{cute}, miku (vocaloid), 1.5::rain::", v4_prompt={"caption": caption},
        request_type="Img2ImgRequest", strength=0.7, sm=True, noise_schedule="native",
    )  # fmt: skip
    found = imported(png_with(tmp_path, **chunks))
    assert found.fields["prompt"] == "(cute:1.05), miku \\(vocaloid\\), (rain:1.5)"
    notes = "\n".join(found.notes)
    for piece in ("prompt: NovelAI's weights", "boy, blue hair", "request_type Img2ImgRequest",
                  "strength: 0.7", "sm: true", "scheduler native"):  # fmt: skip
        assert piece in notes, piece


def test_fooocus(tmp_path: Path) -> None:
    data = {
        "prompt": "1girl, red hair", "negative_prompt": "lowres", "seed": "555", "steps": 28,
        "guidance_scale": 4.5, "sampler": "er_sde", "scheduler": "karras",
        "resolution": "(832, 1216)", "base_model": "anima", "base_model_hash": "0123abcdef",
        "refiner_model": "None", "styles": "['Fooocus V2']", "performance": "Quality",
        "full_prompt": ["1girl, red hair"], "lora_combined_1": "ink : 0.6",
        "loras": [["ink", 0.6, "1a2b"]], "metadata_scheme": "fooocus", "vae": "Default",
        "version": "Fooocus v2.5.5",
    }  # fmt: skip
    text = json.dumps(data)
    for path in (
        png_with(tmp_path, parameters=text, fooocus_scheme="fooocus"),
        with_tag(tmp_path, ExifTags.Base.UserComment, text),
        jpeg_with_comment(tmp_path, text.encode()),
    ):
        found = imported(path)
        loras = [{"name": "ink", "weight": 0.6}]
        assert found.fields == SETTINGS | {"scheduler": "karras", "loras": loras}, path
        assert (found.model, found.checkpoint) == ("anima", "0123abcdef")
        assert [note.partition(":")[0] for note in found.notes] == ["styles", "performance"]


def test_fooocus_in_the_form_of_infotext(tmp_path: Path) -> None:
    text = (
        "cinematic still 1girl . emotional\nNegative prompt: anime, lowres\nSteps: 30, Sampler: "
        "DPM++ 2M SDE Karras, Seed: 5, Size: 832x1216, CFG scale: 4, Scheduler: karras, "
        'Performance: Speed, Raw prompt: 1girl, Raw negative prompt: lowres, Lora hashes: "ink: '
        '1a2b", Lora weights: "ink: 0.6", Version: Fooocus v2.5.5'
    )
    found = imported(png_with(tmp_path, parameters=text))
    assert (found.fields["prompt"], found.fields["negative_prompt"]) == ("1girl", "lowres")
    assert found.fields["loras"] == [{"name": "ink", "weight": 0.6}]
    assert found.notes[0] == "prompt: used as it was before Fooocus added its styles"


def test_draw_things(tmp_path: Path) -> None:
    data = {
        "c": "1girl, red hair", "uc": "lowres", "seed": 555, "steps": 28, "scale": 4.5,
        "sampler": "Euler A", "size": "832x1216", "strength": 1, "shift": 3, "model": "anima.ckpt",
        "lora": [{"model": "ink_lora_f16.ckpt", "weight": 0.6}], "v2": {"steps": 28},
    }  # fmt: skip
    escaped = json.dumps(data).replace("&", "&amp;").replace("<", "&lt;")
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description><xmp:CreatorTool>Draw Things'
        "</xmp:CreatorTool><exif:UserComment><rdf:Alt>"
        f'<rdf:li xml:lang="x-default">{escaped}</rdf:li></rdf:Alt></exif:UserComment>'
        "</rdf:Description></x:xmpmeta>"
    )
    found = imported(png_with_xmp(tmp_path, packet))
    loras = [{"name": "ink_lora_f16", "weight": 0.6}]
    assert found.fields == SETTINGS | {"sampler": "euler_ancestral", "loras": loras}
    assert found.notes == ["scheduler: not in the file; the default is used"]


def test_sd_next_writes_templates_after_the_negative_prompt(tmp_path: Path) -> None:
    text = (
        "1girl, red hair\nNegative prompt: lowres\nTemplate: 1girl, __hair__\nNegative template: x"
        "\nSteps: 28, Size: 832x1216, Sampler: Euler a, Scheduler: EulerAncestralDiscrete"
        "Scheduler, Seed: 555, CFG scale: 4.5, App: SD.Next, Version: 0a1b, Pipeline: Anima"
    )
    found = imported(png_with(tmp_path, parameters=text))
    assert found.fields == SETTINGS | {"sampler": "euler_ancestral"}
    notes = "\n".join(found.notes)
    for piece in ("Template: 1girl", "Negative template: x", "scheduler Euler", "pipeline: Anima"):
        assert piece in notes, piece


def test_what_a_text_does_not_say_is_noted(tmp_path: Path) -> None:
    found = imported(png_with(tmp_path, parameters="1girl\nSteps: 20, Sampler: Euler a, Shift: 3"))
    assert found.notes == [
        "shift: 3: not supported",
        *(
            f"{name}: not in the file; the default is used"
            for name in ("seed", "cfg_scale", "scheduler", "resolution")
        ),
    ]


def test_texts_of_nobody_are_refused_with_the_reason(tmp_path: Path) -> None:
    cases = {
        "not an infotext": (
            FIELD_IMAGES / "single-line.png",
            "just a prompt",
            "1girl\nFoo: 1, Bar: 2, Baz: 3",
        ),
        "a program that is not supported": ('{"text": "a cat", "n": 3}', "[1, 2]"),
        "no prompt": (
            "Steps: 20, Sampler: Euler a, Seed: 5",
            '{"sui_image_params": {"seed": 5}}',
            '{"sui_image_params": 3}',
            '{"positive_prompt": null, "generation_mode": "txt2img"}',
            '{"base_model": "x", "prompt": ["a"]}',
        ),
    }
    failures = []
    for reason, sources in cases.items():
        for source in sources:
            path = source if isinstance(source, Path) else png_with(tmp_path, parameters=source)
            if reason not in (said := refusal(path)):
                failures.append((source, said))
    workflow = json.dumps({"nodes": [], "links": [], "version": 0.4})
    assert "the format of ComfyUI's editor" in refusal(png_with(tmp_path, workflow=workflow))
    assert failures == []


def test_the_next_text_is_read_if_one_cannot_be(tmp_path: Path) -> None:
    graph = {
        "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "seed": 9}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a bird"}},
    }
    path = png_with(tmp_path, parameters="saved by a friend", prompt=json.dumps(graph))
    found = imported(path)
    assert found.fields["prompt"] == "a bird"
    assert "not an infotext" in found.notes[0]
    assert found.notes[0].endswith("comfyui is used instead")


# -- bytes around the text -------------------------------------------------------------------------


def test_line_ends_and_marks_are_no_part_of_the_prompt(tmp_path: Path) -> None:
    failures = []
    paths = [FIELD_IMAGES / "crlf.png", FIELD_IMAGES / "uc-II-utf-16-le-bom.jpg"]
    for path in paths:
        if imported(path).fields != EXPECTED:
            failures.append((path.name, imported(path).fields))
    for name, text in {
        "CR": INFOTEXT.replace("\n", "\r"),
        "BOM": f"\ufeff{INFOTEXT}",
        "blanks": INFOTEXT.replace("\n", "  \n ") + "\n\n",
        "NUL": f"{INFOTEXT}\0",
    }.items():
        found = imported(with_user_comment(tmp_path, b"UNICODE\0" + text.encode("utf-16-be")))
        if found.fields != EXPECTED:
            failures.append((name, found.fields))
    assert failures == []


COMMENTS = {
    "UNICODE, big-endian": b"UNICODE\0" + INFOTEXT.encode("utf-16-be"),
    "UNICODE, little-endian": b"UNICODE\0" + INFOTEXT.encode("utf-16-le"),
    "UNICODE, big-endian with a mark": b"UNICODE\0\xfe\xff" + INFOTEXT.encode("utf-16-be"),
    "UNICODE, little-endian with a mark": b"UNICODE\0\xff\xfe" + INFOTEXT.encode("utf-16-le"),
    "UNICODE, but UTF-8": b"UNICODE\0" + INFOTEXT.encode(),
    "UNICODE, but UTF-8 with a mark": b"UNICODE\0\xef\xbb\xbf" + INFOTEXT.encode(),
    "Unicode": b"Unicode\0" + INFOTEXT.encode("utf-16-le"),
    "ASCII, but UTF-8": b"ASCII\0\0\0" + INFOTEXT.encode(),
    "ASCII, but UTF-16": b"ASCII\0\0\0" + INFOTEXT.encode("utf-16-le"),
    "undefined": b"\0" * 8 + INFOTEXT.encode(),
    "none": INFOTEXT.encode(),
    "none, UTF-16 with a mark": b"\xff\xfe" + INFOTEXT.encode("utf-16-le"),
    "none, UTF-16": INFOTEXT.encode("utf-16-le"),
}


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".png"])
def test_comments_are_read_in_every_encoding(tmp_path: Path, suffix: str) -> None:
    failures = []
    for name, comment in COMMENTS.items():
        fields = imported(with_user_comment(tmp_path, comment, suffix)).fields
        if fields != EXPECTED:
            failures.append((name, fields))
    assert failures == []


def test_comments_in_jis(tmp_path: Path) -> None:
    text = INFOTEXT.replace("café", "cafe")
    for encoding in ("iso2022_jp", "cp932"):
        path = with_user_comment(tmp_path, b"JIS\0\0\0\0\0" + text.encode(encoding))
        assert imported(path).fields == EXPECTED | {"prompt": EXPECTED["prompt"][:-1] + "e"}, (
            encoding
        )


def test_mostly_foreign_letters_do_not_turn_the_byte_order(tmp_path: Path) -> None:
    prompt = "一" * 500
    text = f"{prompt}\nNegative prompt: \nSteps: 20, Seed: 1, Size: 64x64"
    for order in ("be", "le"):
        path = with_user_comment(tmp_path, b"UNICODE\0" + text.encode(f"utf-16-{order}"))
        assert imported(path).fields["prompt"] == prompt, order


def test_texts_are_found_where_other_programs_write_them(tmp_path: Path) -> None:
    places: dict[str, Callable[[], Path]] = {
        "PNG Parameters": lambda: png_with(tmp_path, Parameters=INFOTEXT),
        "PNG Comment": lambda: png_with(tmp_path, Comment=INFOTEXT),
        "XPComment": lambda: with_tag(
            tmp_path, ExifTags.Base.XPComment, INFOTEXT.encode("utf-16-le")
        ),
        "PNG tEXt in UTF-8": lambda: png_with_bytes(tmp_path, INFOTEXT.encode()),
        "PNG eXIf": lambda: with_user_comment(tmp_path, COMMENTS["UNICODE, big-endian"], ".png"),
        "JPEG comment": lambda: jpeg_with_comment(tmp_path, INFOTEXT.encode()),
        "ImageDescription": lambda: with_tag(
            tmp_path, ExifTags.Base.ImageDescription, INFOTEXT.encode()
        ),
        "UserComment in the first directory": lambda: with_tag(
            tmp_path, ExifTags.Base.UserComment, COMMENTS["UNICODE, big-endian"]
        ),
        "ImageDescription of a WebP": lambda: with_tag(
            tmp_path, ExifTags.Base.ImageDescription, INFOTEXT.encode(), ".webp"
        ),
    }
    failures = []
    for place, write in places.items():
        fields = imported(write()).fields
        if fields != EXPECTED:
            failures.append((place, fields))
    assert failures == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about broken files
def test_broken_exif_hides_nothing_else(tmp_path: Path) -> None:
    info = PngInfo()
    info.add(b"eXIf", b"II*\0\x08\0\0\0\xff\xff\x12\x01")
    info.add_itxt("parameters", INFOTEXT)
    path = tmp_path / "image.png"
    Image.new("RGB", (16, 16)).save(path, pnginfo=info)
    assert imported(path).fields == EXPECTED
    path = tmp_path / "image.webp"
    for exif in (b"nothing", b"II*\0\x08\0\0\0\x02\0\x0f\x01"):
        Image.new("RGB", (16, 16)).save(path, exif=exif)
        assert read_metadata(path) == ImageTexts()


def test_captions_of_cameras_and_editors_are_no_recipes(tmp_path: Path) -> None:
    for path in (
        jpeg_with_comment(tmp_path, b"Created with GIMP"),
        with_tag(tmp_path, ExifTags.Base.ImageDescription, "OLYMPUS DIGITAL CAMERA"),
        png_with(tmp_path, Comment="Created with GIMP"),
    ):
        with pytest.raises(AssertionError, match="has no recipe"):
            imported(path)
