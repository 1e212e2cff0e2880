"""Sample images of a run in TensorBoard."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from tests.train.conftest import scene
from tests.train.test_training import small
from train.models import create_generator
from train.training.loop import train
from train.training.sample_images import MAX_SIDE_PX, draw_samples


def test_samples_are_rows_of_blurred_restored_and_sharp_in_rgb() -> None:
    generator = create_generator("edge", widths=(8,), blocks=(1,))
    sharp = [scene(300, 280, seed=seed) for seed in range(2)]
    blurred = [cv2.blur(image, (7, 1)) for image in sharp]
    image = draw_samples(generator, list(zip(blurred, sharp, strict=True)))
    assert generator.training
    assert (image.shape, image.dtype) == ((2 * MAX_SIDE_PX, 3 * MAX_SIDE_PX, 3), np.uint8)
    expected = sharp[1][12:268, 22:278, ::-1]
    np.testing.assert_array_equal(image[MAX_SIDE_PX:, 2 * MAX_SIDE_PX :], expected)
    np.testing.assert_array_equal(image[:MAX_SIDE_PX, :MAX_SIDE_PX], blurred[0][12:268, 22:278, ::-1])


def test_sample_images_are_logged_every_n_steps_and_change_nothing_else(photos: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small("image_steps=4"), data=[photos], run=tmp_path / "images")
    train(small("image_steps=0"), data=[photos], run=tmp_path / "plain")
    (images, plain) = (EventAccumulator(str(tmp_path / n / "tensorboard")).Reload() for n in ("images", "plain"))
    assert [event.step for event in images.Images("blurred, restored, sharp")] == [4, 8]
    assert plain.Tags()["images"] == []
    encoded = images.Images("blurred, restored, sharp")[0].encoded_image_string
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == 3 * 32
    states = [torch.load(tmp_path / n / "state.pt", weights_only=True) for n in ("images", "plain")]
    for state in states:
        del state["recipe"]
        assert state["step"] == 9
    weights = [state["generator"] for state in states]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
