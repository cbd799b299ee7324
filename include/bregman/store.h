/* store.h - the HDF5 files between stages (shared layout: see the table in
 * common/store/schema.c, which drives writing, reading, verification and the
 * format page) and their publication.
 *
 * Local: no call here uses MPI; no file is written by two ranks.
 *
 * Publication.  A file is written under a name of this attempt's own
 * (PATH.tmp-WRITER, writer.h), closed with its status checked, fsynced, given its
 * final name, its folder fsynced; then one line "HASH SIZE NAME" is appended and
 * fsynced to the folder's manifest (manifest.h).  Readers of a folder believe only the
 * manifest.  A file that was not published is deleted by bg_store_discard; what
 * a kill -9 leaves behind has a .tmp- name that no reader looks at.
 */
#ifndef BG_STORE_H
#define BG_STORE_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/hash.h"
#include "bregman/schema.h"
#include "bregman/status.h"

/* Where a file came from: becomes group /run of everything written with it. */
typedef struct {
    const char *stage, *options; /* options as JSON */
    const char *fingerprint;     /* hex: stage, identity options and input hashes */
    uint64_t seed;
    int ranks, threads;
    const char *precision; /* of matrix products, "float32"; NULL: makes none */
    const char *libraries; /* versions of the libraries, as JSON */
    double started;        /* seconds since the epoch */
    size_t n_inputs;
    const char *const *input_name;
    const bg_hash *input_hash;
} bg_provenance;

typedef struct bg_store bg_store;

/* Create a file for `path` (its folder must exist), with root attributes
 * format and format_version and the group /run.  Free with publish or discard. */
bg_status bg_store_create(bg_store **out, const char *path, const char *format, const bg_provenance *run,
                          bg_err *err) BG_MUST_CHECK;

/* Write the group of a further run, which added to what the file's own run had made: as /run, and finished now.  In a
 * file that is made anew from an older one, attributes of /run that the older one had are set again with
 * bg_store_attr_text and bg_store_attr_u64; a run/finished that was set stays. */
bg_status bg_store_add_run(bg_store *s, const char *group, const bg_provenance *run, bg_err *err) BG_MUST_CHECK;

/* Create dataset `path` (groups on the way too) as its schema row says, with
 * dims[n_dims] elements, chunked with Fletcher-32.  Nothing is written yet. */
bg_status bg_store_dataset(bg_store *s, const char *path, const uint64_t *dims, bg_err *err) BG_MUST_CHECK;

/* Write rows [first, first + n) of the leading axis of a dataset made by bg_store_dataset;
 * data in the row's own dtype, row-major (BG_STRING: const char *const *). */
bg_status bg_store_write_rows(bg_store *s, const char *path, uint64_t first, uint64_t n, const void *data,
                              bg_err *err) BG_MUST_CHECK;

/* bg_store_dataset + all rows at once. */
bg_status bg_store_write(bg_store *s, const char *path, const uint64_t *dims, const void *data,
                         bg_err *err) BG_MUST_CHECK;

/* Attributes on the file (object "/") or on an object in it. */
bg_status bg_store_attr_text(bg_store *s, const char *object, const char *name, const char *text,
                             bg_err *err) BG_MUST_CHECK;
bg_status bg_store_attr_u64(bg_store *s, const char *object, const char *name, uint64_t value,
                            bg_err *err) BG_MUST_CHECK;
bg_status bg_store_attr_f64(bg_store *s, const char *object, const char *name, double value, bg_err *err) BG_MUST_CHECK;

/* A second name for an existing object (hard link), or a link into another file of the folder. */
bg_status bg_store_link(bg_store *s, const char *target, const char *path, bg_err *err) BG_MUST_CHECK;
bg_status bg_store_link_external(bg_store *s, const char *file, const char *target, const char *path,
                                 bg_err *err) BG_MUST_CHECK;

/* Leave out what follows the first `rows` rows of each dataset of the file's own format, and publish it as `path`, in
 * the same folder: how far a file that is written row by row gets may be known only at its end. */
bg_status bg_store_cut(bg_store *s, const char *path, uint64_t rows, bg_err *err) BG_MUST_CHECK;

/* Attach dimension scales, write run/finished, close, fsync, rename, manifest.
 * Frees s whatever happens; on failure the temporary file is gone and the
 * final name untouched.  hash [out, may be NULL]: of the published file.
 * Work files ("bregman/work") stand by their name: they are neither hashed nor listed, and hash must be NULL. */
bg_status bg_store_publish(bg_store *s, bg_hash *hash, bg_err *err) BG_MUST_CHECK;
void bg_store_discard(bg_store *s); /* NULL is fine */

/* The end of writing a file: publish if all went well so far (st is BG_OK), else discard and pass st on. */
bg_status bg_store_end(bg_store *s, bg_status st, bg_err *err) BG_MUST_CHECK;

/* Two attempts of one call may run at once (a requeue while the first still lives).
 * bg_store_end_once: as bg_store_end, but the name is taken by link or not at all: if another attempt has published the
 * file with the same fingerprint meanwhile, that one stays and this one is dropped: others may have read it already.
 * For a stage's final files. BG_ESTALE if a file of another call has the name by now.  See also attempt.h. */
bg_status bg_store_end_once(bg_store *s, bg_status st, bg_err *err) BG_MUST_CHECK;

/* Damaged files.  HDF5 refuses files that were cut short and checks the checksums of what it reads; only the heaps that
 * hold texts have none, and damage in them makes it hang or crash.  A heap that a text is read from is therefore
 * checked first, in every file and at each read.  A file that nobody vouches for is beside that searched for damaged
 * heaps when it is opened, up to 32 MiB of it, once in a process and content.  A file is vouched for by its folder's
 * MANIFEST, if that lists it with the size that it has, and work files ("bregman/work") by their folder, into which
 * only the attempts of one call write.
 *
 * Open for reading; checks that the root says `format` (a file that others made may lack
 * "format" if format is bregman/tokens or bregman/queries; bregman/candidates may be in a file of any format) and a
 * known major version.  Errors name the file.  Close with bg_store_close. */
bg_status bg_store_open(bg_store **out, const char *path, const char *format, bg_err *err) BG_MUST_CHECK;
/* A file of tokens or of queries: one that does not say which holds queries if it has completions. */
bg_status bg_store_open_sequences(bg_store **out, const char *path, bg_err *err) BG_MUST_CHECK;
/* The same without a look at format and version, and whatever a manifest says: for those who go through all that a file
 * holds.  Close with bg_store_close. */
bg_status bg_store_open_any(bg_store **out, const char *path, bg_err *err) BG_MUST_CHECK;
bool bg_store_is_hdf5(const char *path);
void bg_store_library_version(char out[32]); /* HDF5's, "1.14.3" */
void bg_store_close(bg_store *s);            /* NULL is fine */
/* About how many bytes they take on disk: a dataset, and a file beside its datasets. */
double bg_store_dataset_bytes(double elements, double element_bytes);
double bg_store_file_bytes(void);
/* And in memory: what HDF5 keeps of datasets of these sizes that are open, of each file BG_STORE_OPEN at most. */
enum { BG_STORE_OPEN = 8 };
double bg_store_cached_bytes(const double *dataset, size_t n);
/* A file that stays open, but is not read for a while, gives back what is cached of it: up to 4 MiB a dataset. */
void bg_store_let_go(bg_store *s);
/* A text attribute of variable or fixed length; NULL if absent.  Caller frees. */
char *bg_hdf5_text(hid_t object, const char *name);
hid_t bg_store_file(const bg_store *s); /* lent, for what the schema does not name: links, types, attributes */
const char *bg_store_path(const bg_store *s);

/* Reading.  A dataset is taken only as its row of the schema has it: class of number, number of axes, axes of one name
 * equally long, those of queries, columns and layers not empty, every element stored in this file (never written,
 * virtual, in a raw file beside it or behind a link into another file is no data; the index of factors links to the
 * block files of its own folder), values in their domain, lengths of a ragged array adding up.  Anything else is
 * refused with one line that names file, dataset, what is there and what was expected: BG_ESHAPE, BG_EFORMAT,
 * BG_ENUMERIC (not finite).  What is asked for must be in the schema: BG_EARG. A reader states the shape it has room
 * for, so that no file decides how much is written where. */
bool bg_store_has(const bg_store *s, const char *path);
/* Shape of a dataset, checked so far as no value needs to be read; BG_ESHAPE unless it has n_dims axes. */
bg_status bg_store_dims(const bg_store *s, const char *path, int n_dims, uint64_t *dims, bg_err *err) BG_MUST_CHECK;
/* All of a dataset of just this shape: dims[n_dims of its row]; converted to dtype, integers range-checked. */
bg_status bg_store_read(const bg_store *s, const char *path, bg_dtype dtype, const uint64_t *dims, void *data,
                        bg_err *err) BG_MUST_CHECK;
/* [n] float64 that files of earlier versions do not have: NULL then.  Free with bg_free, also after an error. */
bg_status bg_store_read_optional(const bg_store *s, const char *path, uint64_t n, double **out,
                                 bg_err *err) BG_MUST_CHECK;
/* Rows [first, first + n) of the leading axis, each of row_size elements. */
typedef struct {
    uint64_t first, n, row_size;
} bg_slab;
/* Lengths of a ragged array are added up only where all are read. */
bg_status bg_store_read_rows(const bg_store *s, const char *path, bg_dtype dtype, bg_slab rows, void *data,
                             bg_err *err) BG_MUST_CHECK;
/* All of a string dataset, of two axes row after row; free with bg_strings_free. */
bg_status bg_store_read_strings(const bg_store *s, const char *path, char ***out, size_t *n, bg_err *err) BG_MUST_CHECK;
/* Those of some rows, rows.n * rows.row_size; that names differ is looked at only where all are read. */
bg_status bg_store_read_string_rows(const bg_store *s, const char *path, bg_slab rows, char ***out,
                                    bg_err *err) BG_MUST_CHECK;
/* One text of a string dataset: the column is 0 where it has one axis.  Caller frees. */
bg_status bg_store_read_string(const bg_store *s, const char *path, uint64_t row, uint64_t column, char **text,
                               bg_err *err) BG_MUST_CHECK;
void bg_strings_free(char **strings, size_t n);

/* Attributes; found [out, may be NULL] tells whether it is there, else a missing one is BG_EFORMAT.
 * Counts that something is divided by (common/store/schema.c) are refused if they are 0.
 * text: caller frees with free(). */
bg_status bg_store_get_text(const bg_store *s, const char *object, const char *name, char **text, bool *found,
                            bg_err *err) BG_MUST_CHECK;
bg_status bg_store_get_u64(const bg_store *s, const char *object, const char *name, uint64_t *value, bool *found,
                           bg_err *err) BG_MUST_CHECK;
bg_status bg_store_get_f64(const bg_store *s, const char *object, const char *name, double *value, bool *found,
                           bg_err *err) BG_MUST_CHECK;

/* Does `path` exist as a published file made with this fingerprint?
 * *done false if the file is not there (or there with this fingerprint, but not, or with another size, in its folder's
 * MANIFEST: a kill came between renaming and listing).
 * Errors: BG_ESTALE, naming the file and what to do, if it is there and was made with other inputs
 * or options, or by somebody else; BG_EFORMAT if it is listed and its size differs from the manifest's. */
bg_status bg_store_is_done(const char *path, const char *fingerprint, bool *done, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STORE_H */
