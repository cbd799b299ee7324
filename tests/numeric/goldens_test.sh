#!/bin/sh
# Factors and scores of every model family against the goldens.
exec "$SRC/tests/python/check_goldens.py" --build "$BUILD"
