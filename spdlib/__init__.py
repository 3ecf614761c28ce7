"""SPot-the-Difference (SPD) self-supervised pretraining for visual anomaly detection.

Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and
Segmentation", ECCV 2022 (arXiv 2207.14315). One concept a module; data flows one way:
datasets -> smoothblend, views -> objectives, pretraining -> encoders -> padim, attention
-> metrics -> plots, widgets.
"""

__version__ = "0.1.0"
