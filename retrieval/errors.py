"""What can go wrong in the knowledge part. The service maps each class to its wire meaning.

KnowledgeError
├── InputError       a document or catalogue file cannot be read; the message names file, line and what to change
├── EmbedderError    an embedder is missing, damaged, or not the one that built the index
└── SnapshotError    a snapshot folder is missing, changed, truncated or inconsistent; the message names the file
"""

from __future__ import annotations


class KnowledgeError(Exception):
    """Base of everything the knowledge part raises on purpose."""


class InputError(KnowledgeError):
    """A document or catalogue file cannot be read; the message names file, line and what to change."""


class EmbedderError(KnowledgeError):
    """An embedder is missing, damaged, or not the one that built the index."""


class SnapshotError(KnowledgeError):
    """A snapshot folder is missing, changed, truncated or inconsistent; the message names the file."""
