/* What this program was built from. */
#include <jansson.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "bregman/eigen.h"
#include "bregman/gemm.h"
#include "bregman/stage.h"
#include "bregman/store.h"

/* "Open MPI v4.1.4, package: ..." and "MPICH Version:\t4.0.2\n..." up to what follows the number. */
static void mpi_version(char out[MPI_MAX_LIBRARY_VERSION_STRING])
{
    int n;
    MPI_Get_library_version(out, &n);
    out[strcspn(out, ",\n")] = '\0';
    char *to = out;
    for (const char *from = out; *from != '\0'; from++)
        if ((*from != ' ' && *from != '\t') || (to > out && to[-1] != ' '))
            *to++ = *from == '\t' ? ' ' : *from;
    *to = '\0';
}

const char *bg_library_versions(void)
{
    static char text[1024];
    if (text[0] != '\0')
        return text;

    char mpi[MPI_MAX_LIBRARY_VERSION_STRING], hdf5[32], xxhash[32];
    unsigned x = XXH_versionNumber();
    bg_store_library_version(hdf5);
    snprintf(xxhash, sizeof xxhash, "%u.%u.%u", x / 10000, x / 100 % 100, x % 100);
    mpi_version(mpi);

    json_t *all = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "hdf5", hdf5, "mpi", mpi, "blas", bg_gemm_library(),
                            "eigen", bg_eigen_library(), "jansson", JANSSON_VERSION, "xxhash", xxhash);
    char *dump = json_dumps(all, JSON_SORT_KEYS);
    snprintf(text, sizeof text, "%s", dump != NULL ? dump : "{}");
    free(dump);
    json_decref(all);
    return text;
}
