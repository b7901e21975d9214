"""The program of the API is a project of its own; tests run it as its user would."""

collect_ignore = ["program"]
