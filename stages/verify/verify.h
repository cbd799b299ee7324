/* verify.h - the stage without its main(), so that tests can link it, and what its parts share. */
#ifndef BG_STAGES_VERIFY_H
#define BG_STAGES_VERIFY_H

#include "bregman/context.h"
#include "bregman/log.h"
#include "bregman/manifest.h"
#include "bregman/options.h"
#include "bregman/stage.h"
#include "bregman/store.h"
#include "bregman/units.h"
#include "finding.h"

typedef struct {
    bg_list paths;
    bool quick, inputs;
} verify_config;

/* Errors: BG_EFORMAT if anything is damaged or missing, after it has all been printed. */
bg_status verify_run(const void *config, const bg_context *ctx, bg_err *err) BG_MUST_CHECK;

/* One call of the stage. */
typedef struct {
    const verify_config *c;
    verify_set files, inputs;
    size_t n_files, n_bad; /* looked at; damaged or missing */
    uint64_t done_bytes;
    bg_progress progress;
} verifying;

/* file.c: compare a file with the lines of its folder's manifest: there, size, content.  What is wrong is printed; the
 * answer is remembered.  A file that is not listed is good, with *listed false: nobody has said how it should be. */
bg_status verify_published(verifying *v, const bg_manifest *m, const char *path, bool *good, bool *listed,
                           bg_err *err) BG_MUST_CHECK;

/* content.c: open a sound HDF5 file, compare all it holds with the schema, read every value, follow its links; what is
 * wrong is printed.  One that is not listed may be anything: a process of its own reads it, which the HDF5
 * library may bring down. */
bg_status verify_content(verifying *v, const char *path, bool listed, bool *good, bg_err *err) BG_MUST_CHECK;

/* A dataset's name in its file. */
typedef struct {
    const char *path, *format; /* of the file */
    const bg_store *store;
    const char *prefix, *name; /* the path of its group with its last slash, "" at the root; its name in there */
    bg_err *said;              /* last of the values of this file: those of one dataset are read with another's too */
} verify_place;

/* dataset.c: is one dataset as its format says?  If not, that is printed.  known [in]: its values have been read under
 * another name. */
bool verify_dataset(const verify_place *at, hid_t dataset, bool known);

/* inputs.c: are the inputs named in /run as they were?  What has changed or gone is printed; only a change is wrong. */
bg_status verify_inputs(verifying *v, const bg_store *s, bool *good, bg_err *err) BG_MUST_CHECK;

/* One line of a folder's UNITS: work files of a sweep, or a plain number of them. */
typedef struct {
    char kind[BG_UNIT_KIND_BYTES];
    bg_units units; /* of a sweep; n_sequences 0: no sweep, their names begin with KIND- */
    uint64_t total; /* units and groups, or files */
} verify_kind;

enum { VERIFY_MOST_KINDS = 8 };

/* A folder while it is looked at. */
typedef struct {
    const char *path; /* with its last slash */
    bg_manifest manifest;
    char **name; /* what is in it, sorted */
    size_t n_names;
    bool *good; /* of each manifest entry: as published */
    verify_kind kind[VERIFY_MOST_KINDS];
    size_t n_kinds;         /* 0: no folder of work files */
    bool *sound;            /* of each name: a work file that holds what it should */
    size_t n_listed, n_bad; /* names in the manifest; those damaged or missing, and damaged work files */
    const char *first_bad;
    bool first_is_there; /* damaged, not missing */
} verify_folder;

/* work.c: what the folder's UNITS says; is this the name of one of its work files; and "12 of 40 units of covariance,
 * ..." of those that are sound, appended to a line. */
void verify_read_units(verify_folder *f);
bool verify_is_work_file(const verify_folder *f, const char *name);
bg_status verify_describe_units(const verify_folder *f, char *line, size_t n_bytes, bg_err *err) BG_MUST_CHECK;

/* leftover.c: of PATH.tmp-WRITER, whose attempt it is, and whether that still runs, where this host can tell; and of
 * the files in DIR/MANIFEST.d that are not closed. */
void verify_leftover(const char *path, const char *writer);
bg_status verify_writers(const char *folder, bg_err *err) BG_MUST_CHECK;

/* outlook.c: the summary line of a folder: what a rerun would do. */
bg_status verify_outlook(const verify_folder *f, bg_err *err) BG_MUST_CHECK;
/* Does this entry count: the last of its name? */
bool verify_is_last_entry(const bg_manifest *m, size_t i);

#endif /* BG_STAGES_VERIFY_H */
