"""SPot-the-Difference (SPD) self-supervised pretraining for visual anomaly detection.

Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and
Segmentation", ECCV 2022 (arXiv 2207.14315). One concept a module; data flows one way:
datasets -> smoothblend, views -> objectives, pretraining -> encoders -> padim, attention
-> metrics -> figures, explorers.
"""

import os

# Waiting threads of GNU's OpenMP, torch's on Linux, spin for milliseconds; processes that share
# cores spin against each other, up to tenfold slower. The runtime reads this once, when torch is
# loaded, and child processes inherit it. Other runtimes do not know the variable.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")

__version__ = "0.1.0"
