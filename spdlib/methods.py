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
ETA = "_eta"  # follows the suffix where eta is not the preset's own


def run_name(method: str, eta: float, usual: float) -> str:
    """Name of a training in files and figures.

    Args:
        method: The baseline.
        eta: Weight of the SPD loss; 0 is the baseline alone.
        usual: The preset's own eta, which is not spelt out.

    >>> run_name("moco", 0, usual=1), run_name("moco", 1, usual=1), run_name("moco", 0.5, usual=1)
    ('moco', 'moco_spd', 'moco_spd_eta0.5')
    """
    if not eta:
        return method
    return method + SPD_SUFFIX + ("" if eta == usual else f"{ETA}{eta:g}")


def baseline_of(method: str) -> str | None:
    """The baseline that an SPD training is compared with; None for what is none.

    >>> baseline_of("simsiam_spd_eta0.5"), baseline_of("simsiam_spd"), baseline_of("imagenet")
    ('simsiam', 'simsiam', None)
    """
    base, spd, _ = method.partition(SPD_SUFFIX)
    return base if spd else None


def method_name(method: str) -> str:
    """How a method is written in text and figures.

    >>> method_name("simsiam_spd"), method_name("simsiam_spd_eta0.5"), method_name("imagenet")
    ('SimSiam + SPD', 'SimSiam + SPD, η 0.5', 'ImageNet')
    """
    base, spd, eta = method.partition(SPD_SUFFIX)
    name = METHOD_NAMES.get(base, base)
    return name + (" + SPD" if spd else "") + eta.replace(ETA, ", η ")
