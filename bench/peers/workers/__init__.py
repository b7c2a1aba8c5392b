"""Programs that run in an environment of their own, one process an answer: they import nothing of this project.

Each is called with two files: the instance as JSON to read, the answer as JSON to write.
"""
