#!/bin/sh
# Factors and scores of every model family against the goldens.
exec "$SRC/scripts/check_goldens.py" --build "$BUILD"
