/* check.h - what a reader expects of a dataset, before a byte of it is used. */
#ifndef BG_STORE_CHECK_H
#define BG_STORE_CHECK_H

#include "handle.h"

/* Open dataset from the cache, lent.  One to be read is as its row of the schema
 * says: class of number, axes, axes of one name equally long throughout the file, every element stored in it. */
bg_status bg_dataset_open(const bg_store *s, const char *path, hid_t *id, bg_err *err) BG_MUST_CHECK;

/* n values as read, of which the first is element `first` of the dataset; texts. */
bg_status bg_values_check(const bg_store *s, const char *path, bg_dtype dtype, const void *data, uint64_t first,
                          uint64_t n, bg_err *err) BG_MUST_CHECK;
bg_status bg_texts_check(const bg_store *s, const char *path, char *const *text, size_t n, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STORE_CHECK_H */
