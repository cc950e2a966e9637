"""The demo: a sample of a real catalogue, queries, and which items are asked about."""
