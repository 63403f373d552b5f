"""Video models with the Hugging Face treatment."""

from hf_video._version import __version__

__all__ = ["__version__"]
