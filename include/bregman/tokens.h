/* tokens.h - read token sequences from tokens/NAME.h5 files, given in an order that
 * defines global sequence numbers (file after file). */
#ifndef BG_TOKENS_H
#define BG_TOKENS_H

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/hash.h"
#include "bregman/status.h"

typedef struct bg_tokens bg_tokens;

/* Open the files.  Local.  Reads `count` of all sequences (8 bytes each are kept).
 * Checks: token and count agree, every count >= 2, tokenizer_hash equal over files where not "", no file
 * given twice under whatever names.
 * A file of queries ("bregman/queries": completion_start, id) opens the same way.
 * Errors: BG_EIO, BG_EFORMAT, BG_EARG (twice), naming the file and the sequence. */
bg_status bg_tokens_open(bg_tokens **out, const char *const *path, size_t n_paths, bg_err *err) BG_MUST_CHECK;
/* The same on all ranks, each file opened once: rank 0 reads what is kept of it and tells the others, which open a file
 * when they read of it; the ranks of a node hold the counts once between them (shared.h).  Collective on comm, with the
 * same paths and an agreed status. */
bg_status bg_tokens_open_all(bg_tokens **out, const char *const *path, size_t n_paths, MPI_Comm comm,
                             bg_err *err) BG_MUST_CHECK;
void bg_tokens_close(bg_tokens *t); /* NULL is fine */

size_t bg_tokens_files(const bg_tokens *t);
const char *bg_tokens_path(const bg_tokens *t, size_t file); /* as it was given; lent */
uint64_t bg_tokens_sequences(const bg_tokens *t);
uint64_t bg_tokens_file_sequences(const bg_tokens *t, size_t file); /* of one of the files */
uint32_t bg_tokens_count(const bg_tokens *t, uint64_t sequence);    /* tokens in it */
uint32_t bg_tokens_longest(const bg_tokens *t, uint64_t begin, uint64_t end);
/* BG_EFORMAT, naming the file and the sequence, if one of [begin, end) has more than max_tokens.  Where positions begin
 * anew in each document of a sequence, nothing is checked: a pass does. */
bg_status bg_tokens_check_longest(const bg_tokens *t, uint64_t begin, uint64_t end, size_t max_tokens,
                                  bg_err *err) BG_MUST_CHECK;
const char *bg_tokens_tokenizer_hash(const bg_tokens *t); /* "" if unknown */

/* BG_EFORMAT unless they hold a corpus of a sequence at least, or queries. */
bg_status bg_tokens_check_corpus(const bg_tokens *t, bg_err *err) BG_MUST_CHECK;
bg_status bg_tokens_check_queries(const bg_tokens *t, bg_err *err) BG_MUST_CHECK;

/* Ids of sequences [begin, end), back to back: out has room for the sum of their counts.
 * Errors: BG_EIO; BG_EFORMAT for an id >= vocab_size (names file, sequence, position, id). */
bg_status bg_tokens_read(const bg_tokens *t, uint64_t begin, uint64_t end, size_t vocab_size, uint32_t *out,
                         bg_err *err) BG_MUST_CHECK;

/* Does a file have a mask of the loss, or documents within sequences?  And what is said of the tokens of sequences
 * [begin, end), back to back as their ids, for bg_batch_mark. */
bool bg_tokens_are_marked(const bg_tokens *t);
bg_status bg_tokens_read_marks(const bg_tokens *t, uint64_t begin, uint64_t end, uint8_t *out,
                               bg_err *err) BG_MUST_CHECK;
/* How many predicted tokens of sequences [begin, end) are in the loss; of queries only their completions' are.
 * BG_EFORMAT for one without. */
bg_status bg_tokens_terms(const bg_tokens *t, uint64_t begin, uint64_t end, uint64_t *n, bg_err *err) BG_MUST_CHECK;
/* BG_EFORMAT: the mask leaves none of the sequence's predicted tokens (of a query's completion) in the loss. */
bg_status bg_tokens_fail_masked(const bg_tokens *t, uint64_t sequence, bg_err *err) BG_MUST_CHECK;

/* Where a sequence comes from: the id of its document, on the heap, "" if the file does not say; and its first token
 * within that, -1 if the file does not say.  Ask in ascending order: one file is open at a time. */
bg_status bg_tokens_document(const bg_tokens *t, uint64_t sequence, char **id, int64_t *start,
                             bg_err *err) BG_MUST_CHECK;

/* Queries only: first token of the completion (1 <= it < count, checked at opening: a query without
 * a completion is BG_EFORMAT naming its id); and the query's id. Lent. */
bool bg_tokens_are_queries(const bg_tokens *t);
uint32_t bg_tokens_completion_start(const bg_tokens *t, uint64_t query);
const char *bg_tokens_query_id(const bg_tokens *t, uint64_t query);

/* Identities of the files as inputs (inputs.h), in order, lent.  The first call reads the files that others made.
 * BG_EARG: two are copies of one file. */
bg_status bg_tokens_hashes(bg_tokens *t, const bg_hash **hash, bg_err *err) BG_MUST_CHECK;

#endif /* BG_TOKENS_H */
