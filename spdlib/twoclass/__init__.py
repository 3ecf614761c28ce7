"""Two-class training: the gain by labels once some defects are collected (Zou et al., 2022).

``presets`` holds the settings, ``models`` the classifier, the U-Net and the probe, ``training``
the training, ``augmentation`` what it reads; ``shots`` compares by number of labelled
images, and encoders on the same draws.
"""

from spdlib.twoclass.models import Classifier, Segmenter, pooled_features, probe
from spdlib.twoclass.presets import settings
from spdlib.twoclass.training import Predictions, TwoClassTraining, check_images, predict, train
