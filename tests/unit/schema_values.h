/* schema_values.h - a small file of each format with all its datasets, made from the schema alone. */
#ifndef BG_TESTS_UNIT_SCHEMA_VALUES_H
#define BG_TESTS_UNIT_SCHEMA_VALUES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bregman/store.h"

enum { SCHEMA_VALUES = 512, SCHEMA_FORMATS = 11 };
static const char *const schema_format[SCHEMA_FORMATS] = {
    "bregman/tokens", "bregman/queries",    "bregman/factors",    "bregman/compressed",
    "bregman/scores", "bregman/candidates", "bregman/comparison", "bregman/ranking",
    "bregman/work",   "bregman/training",   "bregman/bank",
};

typedef union {
    float f32[SCHEMA_VALUES];
    double f64[SCHEMA_VALUES];
    int64_t i64[SCHEMA_VALUES];
    uint32_t u32[SCHEMA_VALUES];
    uint8_t u8[SCHEMA_VALUES];
    const char *text[SCHEMA_VALUES];
} schema_values;

/* "*" in a path becomes a group. */
static void schema_path(const bg_schema_row *row, char out[128])
{
    snprintf(out, 128, "%s%s", row->path[0] == '*' ? "model.h.0" : "", row->path + (row->path[0] == '*'));
}

/* Lengths by axis name, so that datasets of a file agree; those of ragged arrays add up, from 2 on. */
static uint64_t schema_length(const char *format, const char *axis)
{
    size_t n_rows;
    const bg_schema_row *row = bg_schema_rows(&n_rows);
    for (size_t i = 0; i < n_rows; i++)
        if (strcmp(row[i].format, format) == 0 && row[i].sample_dimension != NULL &&
            strcmp(row[i].sample_dimension, axis) == 0) {
            uint64_t n = 1;
            for (int d = 0; d < row[i].n_dims; d++)
                n *= schema_length(format, row[i].dim[d]);
            return n * (n + 3) / 2;
        }
    return strlen(axis) % 3 + 2;
}

static void schema_dims(const bg_schema_row *row, uint64_t dims[3])
{
    for (int d = 0; d < row->n_dims; d++)
        dims[d] = schema_length(row->format, row->dim[d]);
}

/* Values of the row's domain; how many bytes of numbers they are. */
static size_t schema_fill(const bg_schema_row *row, const uint64_t *dims, schema_values *v)
{
    static const char *const texts[] = { "", "x", "Caf\xc3\xa9 \xe2\x88\x91", "y", "z" };
    size_t n = 1, bytes = 0;
    float from = row->domain == BG_DOCUMENT || row->domain == BG_SEQUENCE_OR_NONE || row->domain == BG_FROM_0_OR_NONE
                     ? -1
                     : row->domain == BG_FINITE;
    uint32_t first = row->sample_dimension != NULL ? 2 : row->domain == BG_FROM_0 ? 1 : 4000000000u;
    size_t documents = schema_length(row->format, "document");
    int64_t every = row->domain == BG_FROM_0 ? 50000000000 : 5000000000; /* sequences there are, and their numbers */
    for (int d = 0; d < row->n_dims; d++)
        n *= dims[d];
    if (n > SCHEMA_VALUES)
        abort();
    memset(v, 0, sizeof *v);
    for (size_t i = 0; i < n; i++)
        switch (row->dtype) {
        case BG_F32:
            v->f32[i] = 0.01f * (float)i - from;
            bytes = 4;
            break;
        case BG_F64:
            v->f64[i] = 0.01 * (double)i - (double)from;
            bytes = 8;
            break;
        case BG_I64:
            v->i64[i] = (row->domain == BG_DOCUMENT ? (int64_t)(i % documents) : (int64_t)(i % 20) * every) -
                        (from < 0);
            bytes = 8;
            break;
        case BG_U32:
            v->u32[i] = first == 1 ? first : first + (uint32_t)i;
            bytes = 4;
            break; /* 1: within every query */
        case BG_U8:
            v->u8[i] = (uint8_t)(200 + i);
            bytes = 1;
            break;
        case BG_STRING:
            v->text[i] = texts[row->domain == BG_NAMES ? n - i : i % 5];
            bytes = 0;
            break;
        }
    return n * bytes;
}

/* All datasets of the format. */
static bg_status schema_write(bg_store *s, const char *format, bg_err *err)
{
    size_t n_rows;
    const bg_schema_row *row = bg_schema_rows(&n_rows);
    bg_status st = BG_OK;
    for (size_t i = 0; i < n_rows && st == BG_OK; i++)
        if (strcmp(row[i].format, format) == 0) {
            char path[128];
            uint64_t dims[3];
            schema_values v;
            schema_path(&row[i], path);
            schema_dims(&row[i], dims);
            (void)schema_fill(&row[i], dims, &v);
            st = bg_store_write(s, path, dims, &v, err);
        }
    return st;
}

#endif /* BG_TESTS_UNIT_SCHEMA_VALUES_H */
