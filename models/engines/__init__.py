"""Engines behind one port (models/engines/port.py)."""
