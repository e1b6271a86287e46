"""Names of LoRAs become words."""

from model.policy.lora_names import lora_words


def test_names_are_split_into_words() -> None:
    words = {
        "RedHat": "Red Hat",
        "red_hat-v2": "red hat",
        "RedHatV2.1": "Red Hat",
        "redhatXLv3b": "redhat",
        "hatSDXL": "hat",
        "HatIL": "Hat",
        "RedOil": "Red Oil",
        "hat_sdxl_v1.0": "hat",
        "RedHatStyle": "Red Hat Style, Red Hat",
        "hatstyle": "hatstyle, hat",
        "hatstyleXL": "hatstyle, hat",
        "xlhat": "hat",
        "hatsd15": "hat 15, hatsd15",
        "h4tXL": "h 4 t, h4t",
        "12moHats": "12 mo Hats, 12mo Hats",
        "REDhat": "RE Dhat, RED hat, REDhat",
        "XLHat": "Hat, XLH at",
        "plum": "plum",
        "vivid": "vivid",
        "v2": "",
        "": "",
    }
    assert {name: lora_words(name) for name in words} == words
