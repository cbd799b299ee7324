/* origin.h - what scores were computed from: shards and rankings carry it, so that whoever gives the files again can be
 * told whether they are the same.  A file is known by the hash of its content; its name is for messages.
 */
#ifndef BG_ORIGIN_H
#define BG_ORIGIN_H

#include <stdbool.h>

#include "bregman/store.h"
#include "bregman/tokens.h"

typedef struct {
    size_t n_files;      /* token files: their order numbers the sequences */
    char **file, **hash; /* [n_files] */
    int64_t *sequences;  /* [n_files] */
    /* "": not known */
    bg_hash model;
    bg_hash compressed; /* fingerprint of compressed.h5: made again, it is the same */
    bg_hash queries;    /* queries.h5, which that was made from */
} bg_origin;

/* Token files that are open, with their hashes (reads them, if nobody has asked for those before).  o is all 0 before. */
bg_status bg_origin_set_tokens(bg_origin *o, bg_tokens *t, bg_err *err) BG_MUST_CHECK;

/* Of a file of scores or a ranking.  Clear with bg_origin_clear, also after an error.
 *   remedy [in]  what to do if the file does not say, or not consistently: "score it again" */
bg_status bg_origin_read(bg_origin *o, const bg_store *s, const char *remedy, bg_err *err) BG_MUST_CHECK;
/* The token files alone; a file that does not say is BG_ESTALE. */
bg_status bg_origin_read_tokens(bg_origin *o, const bg_store *s, const char *remedy, bg_err *err) BG_MUST_CHECK;
bg_status bg_origin_write(const bg_origin *o, bg_store *s, bg_err *err) BG_MUST_CHECK;
/* The token files alone. */
bg_status bg_origin_write_tokens(const bg_origin *o, bg_store *s, bg_err *err) BG_MUST_CHECK;
void bg_origin_clear(bg_origin *o);

/* The first thing that `given` has otherwise than `expected`, as a text: "token file 2 is ..., not ...".  False if
 * there is none. What one of the two does not know is not compared. */
enum { BG_DIFFERENCE_BYTES = 400 };
bool bg_origin_differs(const bg_origin *given, const bg_origin *expected, char what[BG_DIFFERENCE_BYTES]);

#endif /* BG_ORIGIN_H */
