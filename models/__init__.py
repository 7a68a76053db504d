"""From features to probabilities, prediction sets and novelty. Pure, plus loading and saving."""
