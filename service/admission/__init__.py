"""Admission: what is taken on, what is made smaller and what is refused, so that what is taken on ends in time."""
