#include "bregman/eigen_stream.h"

#include <math.h>
#include <stdbool.h>

/* Of columns [c, c + w) of a lower triangle, as bg_eigen_stream gives them. */
static bool lower_is_finite(size_t rows, size_t w, const double *x)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < w && k <= i; k++)
            if (!isfinite(x[i * w + k]))
                return false;
    return true;
}

bg_status bg_eigen_read_lower(const bg_eigen_stream *stream, size_t n, size_t first, size_t count, double *out,
                              const char *what, bg_err *err)
{
    bg_status st = stream->lower(stream->self, first, count, out, err);
    if (st == BG_OK && !lower_is_finite(n - first, count, out))
        st = BG_FAIL(err, BG_ENUMERIC, "\"%s\" has a NaN or an infinity", what);
    return st;
}
