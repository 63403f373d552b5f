"""Models for other runtimes: OpenVINO and ONNX Runtime."""

from hf_video.export.model_folder import Agreement, ExportReport, export_model

__all__ = ["Agreement", "ExportReport", "export_model"]
