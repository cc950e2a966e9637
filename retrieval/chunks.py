"""Documents cut into chunks that fit the judge's token budget, at sentence bounds, with an overlap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retrieval.documents import Document

    CountTokens = Callable[[Sequence[str]], Sequence[int]]

_SENTENCE: Final = re.compile(r"(?<=[.!?;])\s+(?=[^\W_]|[\"'(\[])|(?<=[\u3002\uff01\uff1f])")
_CHARACTERS_PER_TOKEN: Final = 24  # no text is longer per token; bounds the work on text without spaces
_SHORTEST: Final = 8  # tokens; a budget below cannot hold a sentence


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document. The first chunk of a document has its id, the next ones `id#2`, `id#3`.

    `names` are other names of its subject; they serve the search and are not stored.
    """

    id: str
    text: str
    source: str
    title: str = ""
    url: str = ""
    names: tuple[str, ...] = ()


def leading_title(title: str, text: str) -> str:
    """A text with its title in front, unless it begins with it."""
    return text if text.lower().startswith(title.lower()) else f"{title}: {text}"


@dataclass(frozen=True, slots=True)
class Chunker:
    """Packs whole sentences into chunks.

    Args:
        count_tokens: token counts of texts, by the tokenizer of the model that will read the chunks.
        budget: most tokens of a chunk, its title included.
        overlap: a chunk begins with the last sentences of the one before, up to this many tokens.
    """

    count_tokens: CountTokens
    budget: int = 128
    overlap: int = 24

    def __post_init__(self) -> None:
        if self.budget < _SHORTEST or not 0 <= self.overlap <= self.budget // 2:
            msg = (
                f"chunks of {self.budget} tokens that share {self.overlap}: need {_SHORTEST} or more, and half at most"
            )
            raise ValueError(msg)

    def chunk(self, document: Document) -> Iterator[Chunk]:
        """Yield the chunks of a document; each has at most `budget` tokens. A title leads every chunk it fits."""
        title = leading_title(document.title, document.text).removesuffix(document.text)
        room = self.budget - (self._count(title) if title else 0)
        if room < self.budget // 2:  # a title that leaves no room for text is text like the rest
            title, room = "", self.budget
            document_text = f"{document.title}. {document.text}"
        else:
            document_text = document.text
        for n, text in enumerate(self._pack(document_text, room), start=1):
            chunk_id = document.id if n == 1 else f"{document.id}#{n}"
            yield Chunk(chunk_id, title + text, document.source, document.title, document.url, document.names)

    def _count(self, text: str) -> int:
        return self.count_tokens([text])[0]

    def _pack(self, text: str, room: int) -> Iterator[str]:
        if self._count(text) <= room:
            yield text
            return
        sentences = [s for s in _SENTENCE.split(text) if s.strip()]
        pieces = [
            p for s, n in zip(sentences, self.count_tokens(sentences), strict=True) for p in self._fit(s, n, room)
        ]
        sizes = list(self.count_tokens(pieces))
        start = 0
        while start < len(pieces):
            end, size = start, 0
            while end < len(pieces) and size + sizes[end] <= room:
                size += sizes[end]
                end += 1
            while self._count(" ".join(pieces[start:end])) > room and end > start + 1:
                end -= 1  # joined text may take a token more than its parts in a byte-level vocabulary
            yield " ".join(pieces[start:end])
            if end == len(pieces):
                return
            back, carried = end, 0
            while (
                back - 1 > start
                and carried + sizes[back - 1] <= self.overlap
                and sizes[end] + carried + sizes[back - 1] <= room
            ):
                back -= 1
                carried += sizes[back]
            start = back

    def _fit(self, sentence: str, size: int, room: int) -> Iterator[str]:
        """Cut a sentence that alone is over the budget, at words, else at characters."""
        while size > room:
            cut = self._longest(sentence[: room * _CHARACTERS_PER_TOKEN], room)
            space = sentence.rfind(" ", 1, cut + 1)
            cut = space if space > 0 else cut
            yield sentence[:cut]
            sentence = sentence[cut:].strip()
            window = sentence[: (room + 1) * _CHARACTERS_PER_TOKEN]
            size = self._count(window) if len(window) == len(sentence) else room + 1
        if sentence:
            yield sentence

    def _longest(self, text: str, room: int) -> int:
        """Most characters from the start that fit, by bisection; at least one."""
        low, high = 1, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._count(text[:middle]) <= room else (low, middle - 1)
        return low
