"""The libraries that quadgate is compared with, each run in a process of its own."""
