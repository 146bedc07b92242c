"""Libraries that quadgate is compared with, each in its own process."""
