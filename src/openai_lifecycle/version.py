"""The version of this package, also the version of its instrumentation scope."""

__version__ = "0.1.0"
