/* schema.h - what datasets each format has: the table in common/store/schema.c, which drives writing, reading,
 * verification and the format page. */
#ifndef BG_SCHEMA_H
#define BG_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bregman/path.h"
#include "bregman/status.h"

enum { BG_FORMAT_VERSION = 1 };

typedef enum { BG_F32, BG_F64, BG_I64, BG_U32, BG_U8, BG_STRING } bg_dtype;

/* What values a dataset may hold.  No domain but BG_ANY has a NaN. */
typedef enum {
    BG_ANY,
    BG_FINITE,
    BG_NOT_NEGATIVE, /* finite, >= 0 */
    BG_SHARE_KEPT,   /* 1 at most, give or take rounding: what is left of a variance, which may be less than nothing */
    BG_FROM_0,       /* whole numbers */
    BG_FROM_0_OR_NONE,   /* the same, or -1 */
    BG_SEQUENCE_LENGTH,  /* tokens of a sequence: from 2 on, since the last is only predicted */
    BG_SEQUENCE,         /* numbers of sequences: below the attribute corpus_sequences, where the file has it */
    BG_SEQUENCE_OR_NONE, /* the same, or -1 */
    BG_DOCUMENT,         /* rows of /documents, or -1 */
    BG_NAMES,            /* texts, none empty, no two equal */
} bg_domain;

/* One row of the schema: a dataset of one format. */
typedef struct {
    const char *format; /* "bregman/scores" */
    const char *path;   /* "score"; "*" + suffix matches any group: a module's datasets */
    bg_dtype dtype;
    int n_dims;
    const char *dim[3]; /* axis names; an axis named like another dataset of the file is its dimension scale */
    bg_domain domain;
    const char *units; /* "nats", "tokens", "1" */
    const char *description;
    const char *sample_dimension; /* of a ragged array's row lengths: the axis they cut up (CF conventions); else NULL */
} bg_schema_row;
/* NULL if there is no such row.  path may be "MODULE/left": matches "* /left". */
const bg_schema_row *bg_schema_find(const char *format, const char *path);
/* All rows, for the format page and tests. */
const bg_schema_row *bg_schema_rows(size_t *n);
/* Axes of one name are equally long in all datasets of a file if a dataset of its root has the axis (or it is k, the
 * length of both lists of extremes), else in those of one group. key [out]: a name that is the same for the axes that
 * must agree: "query", "MODULE/input". */
void bg_schema_axis_key(const char *format, const char *path, const char *axis, char key[BG_PATH_BYTES]);
/* Smallest value of a whole-number attribute of the root; 0 where the schema has none. */
uint64_t bg_schema_attribute_least(const char *format, const char *name);

#endif /* BG_SCHEMA_H */
