"""scikit-learn's handwritten digits: the small data set that needs no download."""

from __future__ import annotations

import numpy as np

from baffle.data.dataset import Dataset, Split, hold_out
from baffle.data.images import resize
from baffle.extras import require
from baffle.keys import Key

HELD_OUT = 0.2


def load_digits(key: Key, *, image_size: int = 0) -> Split:
    """Return the 1,797 digits, a random fifth of them held out.

    Samples [1, 8, 8] (or [1, image_size, image_size]), 17 grey levels 0..16 scaled to [0, 1], 10 classes. Source:
    Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        SettingsError: the image size is out of range.
    """
    bunch = require("sklearn.datasets", "train").load_digits()
    images = resize(bunch.images.astype(np.uint8)[:, np.newaxis], image_size)
    return hold_out(Dataset(images, bunch.target, classes=10, scale=1 / 16), HELD_OUT, key)
