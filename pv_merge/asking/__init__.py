"""Models that are asked: requests, an OpenAI-compatible endpoint, the cache of replies, grades of an answer."""
