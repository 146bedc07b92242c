"""The libraries that fourgate is compared with, each run in a process of its own."""
