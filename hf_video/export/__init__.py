"""Models for other runtimes: OpenVINO, ONNX Runtime and `torch.export`."""

from hf_video.export.model_folder import Agreement, ExportReport, export_model

__all__ = ["Agreement", "ExportReport", "export_model"]
