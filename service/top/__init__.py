"""A live view of one service in a terminal, from its metrics."""
