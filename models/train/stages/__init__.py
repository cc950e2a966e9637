"""Training stages on TRL: `tierwise train STAGE --config FILE`. Each ends in a checkpoint folder for the service.

config.py holds what a run's YAML may say, base.py opens the model to start from, run.py is what all stages share
(resuming, guards, dry run, release), and each stage has one module of its own.
"""
