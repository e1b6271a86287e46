"""Reads and verifies C2PA manifests ("content credentials") of image files.

It never uses the network: no time stamps, no revocation lists, no remote manifests.
"""

import io
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

import c2pa

from worker.settings import Settings

ManifestState = Literal["none", "valid", "untrusted", "invalid"]

_MARKER = b"c2pa"
"""Every manifest contains this, even a broken one."""

C2PA_SETTINGS: Final[dict[str, Any]] = {
    # A thumbnail would be twenty times the rest. Signatures are verified once, at start.
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}
"""Settings of the library, for reading and for signing."""

_MAX_PROBLEMS = 20
_MAX_SHOWN = 200


@dataclass(frozen=True, slots=True)
class C2paManifest:
    """The newest manifest of a file.

    `valid`: the file is unchanged, and its signer is trusted. `untrusted`: it is unchanged, but the
    signer's identity is not verified. `invalid`: the file was changed, or the manifest is broken.
    """

    state: ManifestState = "none"
    signer: str | None = None
    generator: str | None = None
    source_types: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class C2paReader:
    """Reads manifests; trusts the certificates that the settings name."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError, which names the setting, if a certificate file is unreadable."""
        trust = {}
        if settings.c2pa_trust or settings.c2pa_certificate:
            # Without such files, nobody waits for the library that reads them.
            from worker.images.certificates import trust_anchors

            trust = {"trust_anchors": trust_anchors(settings)}
        self._context = c2pa.Context.from_dict({**C2PA_SETTINGS, "trust": trust})

    def read(self, data: bytes, image_format: str) -> C2paManifest:
        """The manifest of a file of this format (png, jpeg, webp, avif), which may be hostile."""
        try:
            with c2pa.Reader(
                f"image/{image_format}", io.BytesIO(data), context=self._context
            ) as reader:
                return _read_report(json.loads(reader.json()))
        except c2pa.C2paError.ManifestNotFound:
            return C2paManifest()
        except (c2pa.C2paError, ValueError) as exc:
            # Without a manifest, the error says only that the library cannot read the file.
            if _MARKER not in data:
                return C2paManifest()
            return C2paManifest(state="invalid", problems=(_shortened(str(exc)),))


_STATES: dict[Any, ManifestState] = {"Trusted": "valid", "Valid": "untrusted"}


def _read_report(store: dict[str, Any]) -> C2paManifest:
    """The newest manifest in the library's report on a file."""
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    results = store.get("validation_results", {}).get("activeManifest", {})
    signature = manifest.get("signature_info") or {}
    names = (signature.get("common_name"), signature.get("issuer"))
    generators = (agent.get("name") for agent in manifest.get("claim_generator_info") or ())
    failures = (failure.get("code") for failure in results.get("failure") or ())
    return C2paManifest(
        state=_STATES.get(store.get("validation_state"), "invalid"),
        signer=_shortened(", ".join(filter(None, names))) or None,
        generator=_shortened(", ".join(filter(None, generators))) or None,
        source_types=tuple(dict.fromkeys(_source_types(manifest)))[:_MAX_PROBLEMS],
        problems=tuple(_shortened(str(code)) for code in failures)[:_MAX_PROBLEMS],
    )


def _source_types(manifest: dict[str, Any]) -> list[str]:
    """The digital source types in the actions of a manifest."""
    return [
        _shortened(action["digitalSourceType"])
        for assertion in manifest.get("assertions") or ()
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in (assertion.get("data") or {}).get("actions") or ()
        if isinstance(action.get("digitalSourceType"), str)
    ]


def _shortened(text: str) -> str:
    return text[:_MAX_SHOWN]
