"""The one place that holds the version."""

# The version of the package, as pip knows it.
__version__ = "0.1.0"
