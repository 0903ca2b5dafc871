"""What operators see of each decision: metrics and one structured record. Nothing here decides."""
