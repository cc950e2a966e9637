"""One module for each command of `tierwise`."""
