/* schema.c - the table of common/store/schema.c for those who do not read C.  The build runs it:
 *
 *   schema json   for scripts/bregman/schema.py
 *   schema page   for people */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "bregman/schema.h"

static const char *const dtype_name[] = {
    [BG_F32] = "float32", [BG_F64] = "float64", [BG_I64] = "int64",
    [BG_U32] = "uint32",  [BG_U8] = "uint8",    [BG_STRING] = "text",
};

static const char *const domain_name[] = {
    [BG_ANY] = "any",
    [BG_FINITE] = "finite",
    [BG_NOT_NEGATIVE] = "finite, 0 or more",
    [BG_SHARE_KEPT] = "at most 1",
    [BG_FROM_0] = "0 or more",
    [BG_FROM_0_OR_NONE] = "0 or more, or -1",
    [BG_SEQUENCE_LENGTH] = "2 or more",
    [BG_SEQUENCE] = "number of a sequence",
    [BG_SEQUENCE_OR_NONE] = "number of a sequence, or -1",
    [BG_DOCUMENT] = "row of /documents, or -1",
    [BG_NAMES] = "not empty, no two equal",
};

/* Each axis as [its name, what is the same for all axes of a file that are equally long]. */
static json_t *axes(const bg_schema_row *row)
{
    char key[BG_PATH_BYTES];
    json_t *all = json_array();
    for (int d = 0; d < row->n_dims; d++) {
        bg_schema_axis_key(row->format, row->path, row->dim[d], key);
        json_array_append_new(all, json_pack("[s, s]", row->dim[d], key));
    }
    return all;
}

static int print_json(const bg_schema_row *row, size_t n)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < n; i++, row++)
        json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:o, s:s, s:s, s:s, s:s?}", "format", row->format,
                                              "path", row->path, "dtype", dtype_name[row->dtype], "axes", axes(row),
                                              "domain", domain_name[row->domain], "units", row->units, "description",
                                              row->description, "sample_dimension", row->sample_dimension));
    json_t *table = json_pack("{s:i, s:o}", "format_version", BG_FORMAT_VERSION, "rows", rows);
    int failed = table == NULL || json_dumpf(table, stdout, JSON_INDENT(1)) != 0;
    putchar('\n');
    json_decref(table);
    return failed;
}

/* A table of Markdown for each format, in the order of the rows. */
static int print_page(const bg_schema_row *row, size_t n)
{
    const char *format = "";
    printf("# Bregman's files, format version %d\n\nIn a path * stands for a module's group.\n", BG_FORMAT_VERSION);
    for (size_t i = 0; i < n; i++, row++) {
        if (strcmp(format, row->format) != 0)
            printf("\n## %s\n\n| dataset | type | axes | values | unit | meaning |\n|---|---|---|---|---|---|\n",
                   strcmp(row->format, "bregman/*") == 0 ? "Every file" : row->format);
        format = row->format;
        printf("| `%s` | %s | ", row->path, dtype_name[row->dtype]);
        for (int d = 0; d < row->n_dims; d++)
            printf("%s%s", d > 0 ? ", " : "", row->dim[d]);
        printf(" | %s | %s | %s |\n", domain_name[row->domain], row->units, row->description);
    }
    return 0;
}

int main(int argc, char **argv)
{
    size_t n;
    const bg_schema_row *row = bg_schema_rows(&n);
    bool json = argc == 2 && strcmp(argv[1], "json") == 0, page = argc == 2 && strcmp(argv[1], "page") == 0;
    if (!json && !page) {
        fputs("usage: schema json|page\n", stderr);
        return 2;
    }
    int failed = json ? print_json(row, n) : print_page(row, n);
    return failed || fflush(stdout) != 0 || ferror(stdout);
}
