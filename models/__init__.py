"""The judge: tiers, prompt, checkpoint manifest, engines, training and evaluation.

Nothing here knows about HTTP, tenants or knowledge snapshots.
"""
