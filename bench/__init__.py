"""Ratios of the service against baselines, measured in one run on one machine; README.md says how."""
