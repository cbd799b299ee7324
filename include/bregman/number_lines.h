/* number_lines.h - text files of whole numbers, which say what sequences are meant, or what in them. */
#ifndef BG_NUMBER_LINES_H
#define BG_NUMBER_LINES_H

#include <stddef.h>
#include <stdint.h>

#include "bregman/status.h"

/* All lines of a text file, `columns` numbers from 0 in each, with blanks between them; empty lines and those that begin
 * with # are passed over.
 *   number [out]  [n, columns]; to be freed with bg_free
 * Errors: BG_EIO, BG_ENOMEM; BG_EFORMAT naming file and line, or a file without a line. */
bg_status bg_number_lines_read(const char *path, size_t columns, uint64_t **number, uint64_t *n,
                               bg_err *err) BG_MUST_CHECK;

/* Numbers of sequences, in any order, sorted and each kept once.
 *   path    [in]      what they are from, for messages
 *   number  [in,out]  [n]; n becomes what is kept
 * Errors: BG_EFORMAT if there is none, or one is not below n_corpus. */
bg_status bg_sequences_settle(const char *path, uint64_t *number, uint64_t *n, uint64_t n_corpus,
                              bg_err *err) BG_MUST_CHECK;

#endif /* BG_NUMBER_LINES_H */
