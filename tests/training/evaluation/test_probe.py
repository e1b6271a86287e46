from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from training.evaluation import probe as probes
from training.evaluation.probe import (
    ATTRIBUTES,
    IGNORED,
    Probe,
    labelled,
    load_probe,
    read,
    to_input,
)
from training.pictures.avatars import sample_avatar
from training.pictures.drawing import draw


def test_labels_are_indices_of_values_and_closed_eyes_have_no_color() -> None:
    avatar = sample_avatar(np.random.default_rng(0))
    shown = [replace(avatar, eyes="open"), replace(avatar, eyes="closed eyes")]
    labels = labelled(shown)
    for name, values in ATTRIBUTES.items():
        assert values[int(labels[name][0])] == getattr(avatar, name) or name == "eyes"
    assert labels["eye_color"][1] == IGNORED


@pytest.mark.parametrize(("width", "height"), [(128, 128), (112, 144), (144, 112), (192, 192)])
def test_the_face_lies_in_the_same_place_at_every_size(width: int, height: int) -> None:
    avatar = replace(sample_avatar(np.random.default_rng(1)), quality="normal", ornament="none")
    reference = to_input(draw(avatar, 128, 128, np.random.default_rng(0))).float()
    other = to_input(draw(avatar, width, height, np.random.default_rng(0))).float()
    face = (slice(None), slice(20, 76), slice(24, 72))
    assert (reference[face] - other[face]).abs().mean() < 16


def test_reading_names_a_value_for_every_attribute() -> None:
    rng = np.random.default_rng(2)
    images = [draw(sample_avatar(rng), 112, 144, rng) for _ in range(3)]
    answers = read(Probe().eval(), images)
    assert len(answers) == 3
    for answer in answers:
        assert set(answer) == set(ATTRIBUTES)
        assert all(answer[name] in values for name, values in ATTRIBUTES.items())


def test_training_learns_and_its_weights_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is much shorter than the real one. Guessing one of ten backgrounds gives 0.1."""
    torch.set_num_threads(1)
    train = probes.train
    monkeypatch.setattr(probes, "train", lambda probe: train(probe, pictures=128, epochs=15))
    trained = load_probe(tmp_path)
    (path,) = tmp_path.iterdir()
    again = load_probe(tmp_path)
    assert set(load_file(path)) == set(trained.state_dict())
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])
    assert probes.accuracy(again, count=40)["background"] > 0.5
