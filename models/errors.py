"""What can go wrong below the service. The service maps each class to its wire meaning (service/errors.py).

ModelError
├── CheckpointError      a checkpoint folder is missing, changed, or does not fit this engine
├── PromptTooLongError   the prompt does not fit the engine's limit even after truncation by field budgets
├── UnreadableQueryError the tokenizer of this checkpoint drops every character of the query
├── DataError            a data file cannot be read; the message names file, line and what to change
├── TrainingError        a training run cannot start or go on; the message names the row, file or setting
│   └── RequestRefusedError     a teacher or judge does not take one prompt; others it does
└── EngineError          the engine could not answer
    ├── EngineBusyError         no capacity before the deadline; nothing was computed
    └── EngineUnavailableError  dead, hung or not ready; another try elsewhere or later may succeed
"""

from __future__ import annotations


class ModelError(Exception):
    """Base of everything the judge raises on purpose."""


class CheckpointError(ModelError):
    """A checkpoint folder is missing, changed, or does not fit this engine."""


class PromptTooLongError(ModelError):
    """The prompt does not fit the engine's limit even after truncation by field budgets."""


class UnreadableQueryError(ModelError):
    """The tokenizer of this checkpoint drops every character of the query: a score would mean nothing."""


class DataError(ModelError):
    """A data file cannot be read; the message names file, line and what to change."""


class TrainingError(ModelError):
    """A training run cannot start or go on; the message names the row, file or setting."""


class RequestRefusedError(TrainingError):
    """A teacher or judge does not take one prompt; others it does."""


class EngineError(ModelError):
    """The engine could not answer."""


class EngineBusyError(EngineError):
    """No capacity before the deadline; nothing was computed."""


class EngineUnavailableError(EngineError):
    """Dead, hung or not ready; another try elsewhere or later may succeed."""
