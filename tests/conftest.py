import spdlib  # noqa: F401  # before a test imports torch: it says how threads wait
