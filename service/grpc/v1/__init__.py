"""The protocol, and what scripts/proto.py generates from it."""
