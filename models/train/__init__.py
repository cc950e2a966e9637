"""Training of the judge (extra `train`). Nothing on the serving path imports this package."""
