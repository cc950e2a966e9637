"""External knowledge: documents -> chunks -> vectors -> FAISS snapshot -> one chunk per query."""
