"""Folders on disk and what their manifests say: checkpoints, adapters, vectors, policies."""
