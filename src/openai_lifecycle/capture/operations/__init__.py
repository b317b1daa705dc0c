"""One file an API: pure functions from bodies and chunks to facts. ``routes.py`` says which serves what."""
