"""The loops that arrays can't say, compiled: over characters, words and n-grams where they stand.

A file is a subject and imports nothing from the others but `compiled`: what numba keeps on disk
it renews when a function's own file changes, not when a function that it calls does.
"""
