"""Two colour photographs that scikit-learn ships, where solar cells are all grey.

``china`` and ``flower``, by the Flickr users danielbuechele and vultilion, both CC BY 2.0.
"""

from pathlib import Path

from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from spdlib.datasets.samples import read_image


def photographs(height: int) -> dict[str, Tensor]:
    """The photographs by name, RGB floats (3, height, width) in [0, 1]; 3 : 2, not square.

    >>> {name: tuple(photo.shape) for name, photo in photographs(224).items()}
    {'china': (3, 224, 335), 'flower': (3, 224, 335)}
    """
    return {
        Path(path).stem: F.resize(read_image(path), [height], antialias=True).float() / 255
        for path in load_sample_images().filenames
    }
