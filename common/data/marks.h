/* marks.h - what a file of sequences says of each token beyond its id (mark.h): dataset `loss`, and with the
 * attribute `attention` "document" the pieces that sequences are made of, each of which reads only itself. */
#ifndef BG_DATA_MARKS_H
#define BG_DATA_MARKS_H

#include "bregman/store.h"

typedef struct bg_marks bg_marks;

/* Does it say anything, and do positions begin anew with each piece?  Errors: BG_EFORMAT, for attributes of other
 * values. */
bg_status bg_marks_look(const bg_store *s, bool *any, bool *restarts, bg_err *err) BG_MUST_CHECK;
/* Of a file of n sequences, s, which is lent until the marks are freed. */
bg_status bg_marks_open(bg_marks **out, const bg_store *s, uint64_t n, bg_err *err) BG_MUST_CHECK;
void bg_marks_free(bg_marks *m); /* NULL is fine */
/* Of the file's sequences [first, end), whose tokens are `tokens` of the datasets by token and end at sum[1 ..] - sum[0]
 * of these; out [their tokens].  Errors: BG_EFORMAT if its pieces are not those of a sequence, naming it; BG_EIO. */
bg_status bg_marks_read(const bg_marks *m, uint64_t first, uint64_t end, bg_slab tokens, const uint64_t *sum,
                        uint8_t *out, bg_err *err) BG_MUST_CHECK;

#endif /* BG_DATA_MARKS_H */
