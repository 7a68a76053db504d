"""What stream, learner and portal tell of themselves: health, metrics, logs."""
