"""The pretraining methods, and how they are written."""

METHOD_NAMES = {
    "random": "random weights",
    "imagenet": "ImageNet",
    "supervised": "Supervised",
    "simsiam": "SimSiam",
    "moco": "MoCo",
    "simclr": "SimCLR",
}
SPD_SUFFIX = "_spd"


def method_name(method: str) -> str:
    """How a method is written: ``"simsiam_spd"`` is ``"SimSiam + SPD"``.

    >>> method_name("simsiam_spd"), method_name("imagenet")
    ('SimSiam + SPD', 'ImageNet')
    """
    base = method.removesuffix(SPD_SUFFIX)
    return METHOD_NAMES.get(base, base) + (" + SPD" if method.endswith(SPD_SUFFIX) else "")
