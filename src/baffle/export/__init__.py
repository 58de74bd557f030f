"""Models for clients that only run inference: from PyTorch or from ONNX to the folder that `OnnxRuntime` reads."""

from baffle.export.choose import Trainable, trained
from baffle.export.folder import export
from baffle.export.prepare import Choice, Source, from_bundle, from_onnx, prepared, with_weights, write_plain

__all__ = [
    "Choice",
    "Source",
    "Trainable",
    "export",
    "from_bundle",
    "from_onnx",
    "prepared",
    "trained",
    "with_weights",
    "write_plain",
]
