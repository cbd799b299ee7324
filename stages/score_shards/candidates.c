/* candidates.c - the list of sequences that a prefilter chose. */
#include <stdio.h>

#include "bregman/memory.h"
#include "bregman/number_lines.h"
#include "bregman/open.h"
#include "scoring.h"

/* Any HDF5 file with a one-dimensional dataset `sequence`.  Read as signed: a negative number, which HDF5 would
 * turn into 0, then becomes one that is beyond every corpus. */
static bg_status read_hdf5(const char *path, uint64_t **item, uint64_t *n, bg_err *err)
{
    bg_store *s = NULL;
    bg_status st = bg_store_open(&s, path, "bregman/candidates", err);
    if (st == BG_OK)
        st = bg_store_dims(s, "sequence", 1, n, err);
    if (st == BG_OK)
        st = BG_NEW(*item, *n, "candidates", err);
    if (st == BG_OK)
        st = bg_store_read(s, "sequence", BG_I64, n, *item, err);
    bg_store_close(s);
    return st;
}

bg_status score_read_candidates(const char *path, uint64_t n_corpus, uint64_t **out, uint64_t *n, bg_err *err)
{
    FILE *f;
    *out = NULL;
    *n = 0;
    bg_status st = bg_open_stream(path, &f, err); /* before HDF5 opens it: that would wait for a pipe's writer */
    if (st != BG_OK)
        return st;
    fclose(f);
    st = H5Fis_hdf5(path) > 0 ? read_hdf5(path, out, n, err) : bg_number_lines_read(path, 1, out, n, err);
    if (st == BG_OK)
        st = bg_sequences_settle(path, *out, n, n_corpus, err);
    if (st != BG_OK) {
        bg_free(*out);
        *out = NULL;
    }
    return st;
}
