"""From scored objects and labels to requests and better models."""
