"""The gateway: doors, pipeline, settings and the command line."""
