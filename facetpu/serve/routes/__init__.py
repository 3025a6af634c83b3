"""The routes, by what they are about: each asks the house one thing and answers with one model.

FastAPI evaluates the annotations of what it calls, on Python 3.7 too: hence ``Optional`` and ``List``.
"""
