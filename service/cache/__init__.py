"""The result cache: scores by content, in this process and in Redis."""
