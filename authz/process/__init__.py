"""One serving process: start order, readiness, reload, drain; what one configuration version decides with."""
