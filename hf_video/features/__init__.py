"""Embeddings of videos, in memory and in shards on disk."""
