"""Measuring a judge: metrics, bootstrap, baselines, calibration, attacks, reports."""
