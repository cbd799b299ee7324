/* lapack_status.h - LAPACKE's return codes as statuses. */
#ifndef BG_LAPACK_STATUS_H
#define BG_LAPACK_STATUS_H

#include "blas_names.h"
#include "bregman/status.h"

/* For info != 0 of `routine` on the matrix `what`: BG_ENOMEM where LAPACKE had no workspace, else BG_ENUMERIC. */
static inline bg_status bg_lapack_fail(lapack_int info, const char *routine, const char *what, bg_err *err)
{
    if (info == LAPACK_WORK_MEMORY_ERROR || info == LAPACK_TRANSPOSE_MEMORY_ERROR)
        return BG_FAIL(err, BG_ENOMEM, "\"%s\": no memory for the workspace of %s", what, routine);
    if (info < 0)
        return BG_FAIL(err, BG_ENUMERIC, "\"%s\": NaN or overflow in argument %d of %s", what, -(int)info, routine);
    return BG_FAIL(err, BG_ENUMERIC, "\"%s\": %s did not converge (%d)", what, routine, (int)info);
}

#endif /* BG_LAPACK_STATUS_H */
