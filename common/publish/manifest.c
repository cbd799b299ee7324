/* A folder's manifest: read, asked, appended to; and paths' parts, for those who publish.
 *
 * MANIFEST is written whole, under a temporary name, and renamed.  In MANIFEST.d are
 *   WRITER.open  lines of a process that is at work (writer.h), which it alone appends to;
 *   WRITER       the same file, closed: the process has ended its work, and it never changes any more;
 *   WRITER.fold  an empty file, the flag of a process that folds the folder: it takes MANIFEST and all closed files
 * into a new MANIFEST, and then removes those.  Files of writers that are surely dead count as closed.
 *
 * Why no line is lost.
 * 1. No two fold at once.  Who folds raises its flag, a name that nobody else uses, before it lists the folder, and
 *    takes it down when it has ended; if another's flag is there, and that one is not surely dead, it does not fold. Of
 *    two the one that raised its flag later listed later too, so it met the other's, unless that had ended.  (Both may
 *    meet the other's: then neither folds, and the next one does.)  Its own new name also makes an NFS client list
 * anew.
 * 2. Nobody writes to what a fold reads, and only a fold removes it: lines that come meanwhile are in .open files of
 *    the living, or in files that were closed after the list was made; these stay.
 * 3. Removed is what was read, and only after the MANIFEST that has all its lines is on disk: it is the old one, whole,
 *    and the texts of the others behind it.
 * 4. A fold that finds at its end that 1 or 2 did not hold (somebody has removed its flag, or changed or taken a file
 *    that it had read) gives up, and all stays as it is.
 * A fold that does not come about, or is cut off, leaves lines twice or where they are: readers take all files
 * together.
 *
 * Why no line is missed.  A line goes from WRITER.open to WRITER to MANIFEST, and a reader looks in this order: it
 * lists the folder, opens what it found (as WRITER if WRITER.open has gone; if that has gone too, the line is in
 * MANIFEST), lists it again for files that were closed while the first list was being made, which may miss a file that
 * is renamed, and opens MANIFEST last. */
#include "bregman/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bregman/folder.h"
#include "bregman/log.h"
#include "bregman/open.h"
#include "bregman/path.h"
#include "bregman/writer.h"

enum { HASH_DIGITS = 32 };
static const char open_suffix[] = BG_MANIFEST_OPEN, fold_suffix[] = BG_MANIFEST_FOLD;

/* ---- lines ---- */

/* "HASH SIZE NAME", ended by a NUL.  A name with a slash is none of this folder. */
static bool parse_line(char *line, bg_manifest_entry *entry)
{
    const char *digits = line + HASH_DIGITS + 1;
    char *end;
    if (strspn(line, "0123456789abcdef") != HASH_DIGITS || line[HASH_DIGITS] != ' ' || *digits < '0' || *digits > '9')
        return false;
    errno = 0;
    uint64_t size = strtoull(digits, &end, 10);
    if (errno != 0 || *end != ' ' || end[1] == '\0' || strchr(end, '/') != NULL)
        return false;
    memcpy(entry->hash.hex, line, HASH_DIGITS);
    entry->hash.hex[HASH_DIGITS] = '\0';
    entry->size_bytes = size;
    entry->name = end + 1;
    return true;
}

static int by_time(struct timespec a, struct timespec b)
{
    if (a.tv_sec != b.tv_sec)
        return a.tv_sec < b.tv_sec ? -1 : 1;
    return a.tv_nsec < b.tv_nsec ? -1 : a.tv_nsec > b.tv_nsec;
}

static int by_name(const void *a, const void *b)
{
    const bg_manifest_entry *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    if (order == 0 && x->file != y->file && x->file != 0 && y->file != 0)
        order = by_time(x->written, y->written);
    if (order == 0 && x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return order != 0 ? order : x->line < y->line ? -1 : x->line > y->line;
}

/* Cut a text into lines and those into entries, after those that m has.  A torn line that others were put behind is
 * closed by a slash: whatever is there of its name, that is no file's. */
static bg_status parse_text(bg_manifest *m, size_t file, const struct stat *about, char *text, size_t n_bytes,
                            const char *manifest, bg_err *err)
{
    size_t n_lines = 0, number = 0;
    for (size_t i = 0; i < n_bytes; i++)
        n_lines += text[i] == '\n';
    m->torn = m->torn || (n_bytes > 0 && text[n_bytes - 1] != '\n');
    bg_manifest_entry *more = realloc(m->entry, (m->n + n_lines + 1) * sizeof *more);
    if (more == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory for the entries of \"%s\"", manifest);
    m->entry = more;
    for (char *line = text, *end; (end = memchr(line, '\n', (size_t)(text + n_bytes - line))) != NULL; line = end + 1) {
        char *last = end > line && end[-1] == '\r' ? end - 1 : end; /* other systems' editors end lines so */
        *last = '\0';
        number++;
        /* a NUL within the line makes it none */
        if (strlen(line) == (size_t)(last - line) && parse_line(line, &m->entry[m->n])) {
            m->entry[m->n].file = file;
            m->entry[m->n].written = about->st_mtim;
            m->entry[m->n++].line = number;
        } else if (last > line && strcmp(line, "/") != 0)
            m->n_malformed++;
    }
    return BG_OK;
}

/* ---- reading ---- */

/* What the file holds now: it may grow meanwhile, but never by less than a line that was written at once. */
static bg_status read_text(int fd, size_t size, const char *manifest, char **text, size_t *n_bytes, bg_err *err)
{
    ssize_t got = 0;
    *n_bytes = 0;
    if ((*text = malloc(size + 1)) == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\"", manifest);
    while (*n_bytes < size && (got = pread(fd, *text + *n_bytes, size - *n_bytes, (off_t)*n_bytes)) > 0)
        *n_bytes += (size_t)got;
    return got >= 0 ? BG_OK : BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", manifest, strerror(errno));
}

static bg_status read_open(bg_manifest *m, size_t file, int fd, const char *manifest, bg_err *err)
{
    struct stat about;
    size_t n_bytes;
    char **texts = realloc(m->text, (m->n_texts + 1) * sizeof *texts);
    if (texts == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\"", manifest);
    m->text = texts;
    if (fstat(fd, &about) != 0)
        return BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", manifest, strerror(errno));
    bg_status st = read_text(fd, (size_t)about.st_size, manifest, &texts[m->n_texts], &n_bytes, err);
    if (st != BG_OK) {
        free(texts[m->n_texts]);
        return st;
    }
    m->exists = true;
    return parse_text(m, file, &about, texts[m->n_texts++], n_bytes, manifest, err);
}

/* A file more of the table.  *gone: it is not there.  ESTALE: another host has replaced it after it was opened. */
static bg_status read_file(bg_manifest *m, size_t file, const char *manifest, bool *gone, bg_err *err)
{
    enum { TRIES = 100 };
    bg_status st = BG_OK;
    int fd, cause = ESTALE;
    for (int tries = 0; tries < TRIES && cause == ESTALE; tries++) {
        st = bg_open_file(manifest, &fd, err);
        cause = st == BG_OK ? 0 : errno;
        if (st != BG_OK)
            continue;
        st = read_open(m, file, fd, manifest, err);
        cause = st == BG_OK ? 0 : errno;
        close(fd);
    }
    *gone = st != BG_OK && (cause == ENOENT || cause == ENOTDIR);
    return *gone ? BG_OK : st;
}

/* ---- the writers' files ---- */

typedef struct {
    char name[256];
    struct stat about; /* while the folder is folded */
} writer_file;
typedef struct {
    writer_file *file;
    size_t n;
} writer_files;

static int by_file_name(const void *a, const void *b)
{
    return strcmp(((const writer_file *)a)->name, ((const writer_file *)b)->name);
}

/* The names in "DIR/MANIFEST.d", sorted; free with free(). */
static bg_status list_writers(const char *folder, writer_files *list, bg_err *err)
{
    char path[BG_PATH_BYTES];
    size_t capacity = 0;
    bg_status st = bg_path(path, err, "%sMANIFEST.d", folder);
    *list = (writer_files){ 0 };
    DIR *dir = st == BG_OK ? opendir(path) : NULL;
    if (st != BG_OK || (dir == NULL && (errno == ENOENT || errno == ENOTDIR)))
        return st;
    if (dir == NULL)
        return BG_FAIL(err, BG_EIO, "cannot read folder \"%s\": %s", path, strerror(errno));
    for (const struct dirent *e; st == BG_OK && (e = readdir(dir)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        if (list->n == capacity) {
            capacity = 2 * capacity + 16;
            writer_file *more = realloc(list->file, capacity * sizeof *more);
            if (more == NULL) {
                st = BG_FAIL(err, BG_ENOMEM, "out of memory to read \"%s\"", path);
                continue;
            }
            list->file = more;
        }
        snprintf(list->file[list->n++].name, sizeof list->file->name, "%s", e->d_name);
    }
    closedir(dir);
    if (list->n > 0)
        qsort(list->file, list->n, sizeof *list->file, by_file_name);
    return st;
}

static bool is_open(const char *name) { return bg_ends_in(name, open_suffix); }
static bool is_flag(const char *name) { return bg_ends_in(name, fold_suffix); }

/* Sorted names: an .open file comes behind the closed one. */
static bool has_writer(const writer_files *list, const char *closed)
{
    char open_name[sizeof list->file->name + sizeof open_suffix];
    snprintf(open_name, sizeof open_name, "%s%s", closed, open_suffix);
    return list->n > 0 && (bsearch(closed, list->file, list->n, sizeof *list->file, by_file_name) != NULL ||
                           bsearch(open_name, list->file, list->n, sizeof *list->file, by_file_name) != NULL);
}

static bg_status read_writer(bg_manifest *m, size_t file, const char *folder, const char *name, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bool gone = false;
    bg_status st = bg_path(path, err, "%sMANIFEST.d/%s", folder, name);
    if (st == BG_OK)
        st = read_file(m, file, path, &gone, err);
    if (st != BG_OK || !gone || !is_open(name))
        return st;
    path[strlen(path) - strlen(open_suffix)] = '\0';
    return read_file(m, file, path, &gone, err);
}

bg_status bg_manifest_read(bg_manifest *m, const char *folder, bg_err *err)
{
    char path[BG_PATH_BYTES];
    writer_files first = { 0 }, then = { 0 };
    bool gone = false;
    size_t file = 0;
    *m = (bg_manifest){ 0 };
    bg_status st = list_writers(folder, &first, err);
    for (size_t i = 0; i < first.n && st == BG_OK; i++)
        if (!is_flag(first.file[i].name))
            st = read_writer(m, ++file, folder, first.file[i].name, err);
    if (st == BG_OK)
        st = list_writers(folder, &then, err);
    for (size_t i = 0; i < then.n && st == BG_OK; i++)
        if (!is_open(then.file[i].name) && !is_flag(then.file[i].name) && !has_writer(&first, then.file[i].name))
            st = read_writer(m, ++file, folder, then.file[i].name, err);
    free(first.file);
    free(then.file);
    if (st == BG_OK)
        st = bg_path(path, err, "%sMANIFEST", folder);
    if (st == BG_OK)
        st = read_file(m, 0, path, &gone, err);
    if (m->n > 0)
        qsort(m->entry, m->n, sizeof *m->entry, by_name);
    return st;
}

void bg_manifest_clear(bg_manifest *m)
{
    for (size_t i = 0; i < m->n_texts; i++)
        free(m->text[i]);
    free(m->text);
    free(m->entry);
    *m = (bg_manifest){ 0 };
}

const bg_manifest_entry *bg_manifest_find(const bg_manifest *m, const char *name)
{
    size_t low = 0, high = m->n; /* the first entry behind those of the name */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(m->entry[middle].name, name) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && strcmp(m->entry[low - 1].name, name) == 0 ? &m->entry[low - 1] : NULL;
}

/* ---- asking ---- */

/* The table of the last folder asked about, and what told that it is up to date. */
static struct {
    char *folder;
    bg_hash state;
    bg_manifest table;
} kept;

static void forget(void)
{
    bg_manifest_clear(&kept.table);
    free(kept.folder);
    kept.folder = NULL;
}

/* Of a file, as it is now: opened, not only looked at, which makes an NFS client ask the server. */
static void note_state(FILE *f, const char *path)
{
    struct stat about = { .st_ino = 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        (void)fstat(fd, &about);
        close(fd);
    }
    fprintf(f, "%ju %ju %jd %jd.%09ld\n", (uintmax_t)about.st_dev, (uintmax_t)about.st_ino, (intmax_t)about.st_size,
            (intmax_t)about.st_mtim.tv_sec, about.st_mtim.tv_nsec);
}

/* Whatever changes when a line is added: any difference counts, a time that went backward too.  Files that are closed
 * stay as they are. */
static bg_status state_of(const char *folder, bg_hash *out, bg_err *err)
{
    char path[BG_PATH_BYTES], *text = NULL;
    size_t n = 0;
    writer_files writers;
    bg_status st = list_writers(folder, &writers, err);
    FILE *f = st == BG_OK ? open_memstream(&text, &n) : NULL;
    for (size_t i = 0; i < writers.n && f != NULL && st == BG_OK; i++) {
        if (!is_flag(writers.file[i].name))
            fprintf(f, "%s\n", writers.file[i].name);
        if (is_open(writers.file[i].name) &&
            (st = bg_path(path, err, "%sMANIFEST.d/%s", folder, writers.file[i].name)) == BG_OK)
            note_state(f, path);
    }
    free(writers.file);
    if (f != NULL && st == BG_OK && (st = bg_path(path, err, "%sMANIFEST", folder)) == BG_OK)
        note_state(f, path);
    bool noted = f != NULL && fclose(f) == 0;
    if (st == BG_OK && !noted)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory to read the manifest of \"%s\"", folder);
    if (st == BG_OK)
        *out = bg_hash_bytes(text, n);
    free(text);
    return st;
}

static bg_status refresh(const char *folder, bg_err *err)
{
    bg_hash now = { "" };
    bg_status st = state_of(folder, &now, err);
    if (st == BG_OK && kept.folder != NULL && strcmp(kept.folder, folder) == 0 && strcmp(kept.state.hex, now.hex) == 0)
        return BG_OK;
    forget();
    if (st == BG_OK && (kept.folder = strdup(folder)) == NULL)
        st = BG_FAIL(err, BG_ENOMEM, "out of memory to read the manifest of \"%s\"", folder);
    kept.state = now;
    if (st == BG_OK)
        st = bg_manifest_read(&kept.table, folder, err);
    if (st != BG_OK)
        forget();
    return st;
}

/* Of several entries for a name the one that has the file's size, and of these the last. */
static const bg_manifest_entry *choose(const bg_manifest *m, const char *path, const char *name)
{
    const bg_manifest_entry *last = bg_manifest_find(m, name);
    struct stat about;
    if (last == NULL || last == m->entry || stat(path, &about) != 0)
        return last;
    for (const bg_manifest_entry *e = last; e >= m->entry && strcmp(e->name, name) == 0; e--)
        if (e->size_bytes == (uint64_t)about.st_size)
            return e;
    return last;
}

bg_status bg_manifest_lookup(const char *path, bool *listed, bg_manifest_entry *entry, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    *listed = false;
    bg_status st = bg_folder_of(path, folder, err);
    if (st == BG_OK)
        st = refresh(folder, err);
    if (st != BG_OK)
        return st;
    const bg_manifest_entry *found = choose(&kept.table, path, bg_base_name(path));
    if (found == NULL)
        return BG_OK;
    *listed = true;
    *entry = *found;
    entry->name = NULL;
    return BG_OK;
}

/* ---- appending ---- */

/* This process, and the folders that it has an open file in. */
static struct {
    pid_t pid;
    char name[BG_WRITER_BYTES];
    char **folder;
    size_t n;
} self;

static void take_part(void)
{
    if (self.pid == getpid())
        return;
    memset(&self, 0, sizeof self); /* the first time, or in a child */
    self.pid = getpid();
    bg_writer_name(self.name);
}

static bg_status remember_folder(const char *folder, bg_err *err)
{
    for (size_t i = 0; i < self.n; i++)
        if (strcmp(self.folder[i], folder) == 0)
            return BG_OK;
    char **more = realloc(self.folder, (self.n + 1) * sizeof *more);
    if (more != NULL)
        self.folder = more;
    if (more == NULL || (more[self.n] = strdup(folder)) == NULL)
        return BG_FAIL(err, BG_ENOMEM, "out of memory to list files of \"%s\"", folder);
    self.n++;
    return BG_OK;
}

/* This process's file in a folder. */
static bg_status own_path(const char *folder, const char *suffix, char manifest[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(manifest, err, "%sMANIFEST.d/%s%s", folder, self.name, suffix);
}

/* Another one that folds the folder may take MANIFEST.d away in between. */
static int open_own(const char *folder, const char *manifest)
{
    char writers[BG_PATH_BYTES];
    int fd = -1;
    for (int tries = 0; fd < 0 && tries < 100 && bg_path(writers, NULL, "%sMANIFEST.d", folder) == BG_OK; tries++) {
        if (mkdir(writers, 0777) != 0 && errno != EEXIST)
            break;
        fd = open(manifest, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0 && errno != ENOENT)
            break;
    }
    return fd;
}

/* The file's own name, and that of its folder. */
static bg_status sync_names(const char *folder, const char *shown, bg_err *err)
{
    char writers[BG_PATH_BYTES];
    bg_status st = bg_path(writers, err, "%sMANIFEST.d", folder);
    if (st == BG_OK)
        st = bg_sync_path(writers, shown, O_DIRECTORY, err);
    return st == BG_OK ? bg_sync_path(folder, shown, O_DIRECTORY, err) : st;
}

static bg_status write_all(int fd, const char *text, size_t n, const char *manifest, bg_err *err)
{
    errno = ENOSPC; /* what a short write means */
    return write(fd, text, n) == (ssize_t)n && fsync(fd) == 0
               ? BG_OK
               : BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
}

/* All or nothing: a full disk may have room again at the next line. */
static bg_status append_line(int fd, const char *line, size_t n, const char *manifest, bg_err *err)
{
    off_t before = lseek(fd, 0, SEEK_END);
    bg_status st = write_all(fd, line, n, manifest, err);
    bool cut = st == BG_OK || (before >= 0 && ftruncate(fd, before) == 0);
    (void)cut;
    return st;
}

bg_status bg_manifest_append(const char *path, const bg_hash *hash, uint64_t size_bytes, bg_err *err)
{
    char folder[BG_PATH_BYTES], manifest[BG_PATH_BYTES], *line = NULL;
    bg_status st = bg_folder_of(path, folder, err);
    take_part();
    if (st == BG_OK)
        st = own_path(folder, open_suffix, manifest, err);
    if (st != BG_OK)
        return st;
    int fd = open_own(folder, manifest);
    if (fd < 0)
        return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    int n = asprintf(&line, "%s %" PRIu64 " %s\n", hash->hex, size_bytes, bg_base_name(path));
    st = n < 0 ? BG_FAIL(err, BG_ENOMEM, "out of memory for a line of \"%s\"", manifest) : remember_folder(folder, err);
    if (st == BG_OK)
        st = sync_names(folder, path, err);
    if (st == BG_OK)
        st = append_line(fd, line, (size_t)n, manifest, err);
    if (n >= 0)
        free(line);
    if (close(fd) != 0 && st == BG_OK)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    return st;
}

/* ---- folding ---- */

/* May nothing be written to it any more?  A flag of the dead is as good as an empty closed file. */
static bool is_at_rest(const char *name)
{
    char writer[sizeof((writer_file *)0)->name];
    const char *suffix = is_open(name) ? open_suffix : is_flag(name) ? fold_suffix : "";
    snprintf(writer, sizeof writer, "%.*s", (int)(strlen(name) - strlen(suffix)), name);
    return *suffix == '\0' || bg_writer_is_dead(writer);
}

/* Keep of a list what a fold takes; false: another folds, or may. */
static bool keep_at_rest(writer_files *list, const char *own_flag)
{
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++) {
        const char *name = list->file[i].name;
        bool own = strcmp(name, own_flag) == 0, rests = !own && is_at_rest(name);
        if (is_flag(name) && !own && !rests)
            return false;
        if (rests)
            list->file[n++] = list->file[i];
    }
    list->n = n;
    return true;
}

/* A file's text behind what there is, a torn last line closed.  about [out]: as it was; all 0 if it is not there. */
static bg_status copy_text(FILE *out, const char *path, struct stat *about, bg_err *err)
{
    char *text = NULL;
    size_t n = 0;
    int fd;
    *about = (struct stat){ .st_ino = 0 };
    bg_status st = bg_open_file(path, &fd, err);
    if (st != BG_OK)
        return errno == ENOENT ? BG_OK : st;
    if (fstat(fd, about) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    if (st == BG_OK)
        st = read_text(fd, (size_t)about->st_size, path, &text, &n, err);
    if (st == BG_OK && n != (size_t)about->st_size)
        st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": it was cut short meanwhile", path);
    if (st == BG_OK && n > 0) {
        fwrite(text, 1, n, out);
        fputs(text[n - 1] != '\n' ? "/\n" : "", out);
    }
    free(text);
    close(fd);
    return st;
}

static int by_written(const void *a, const void *b)
{
    const writer_file *x = a, *y = b;
    int order = by_time(x->about.st_mtim, y->about.st_mtim);
    return order != 0 ? order : strcmp(x->name, y->name);
}

/* A fold at work. */
typedef struct {
    const char *folder;
    char flag[BG_PATH_BYTES];
    writer_files list;
    struct stat manifest; /* the old one */
    char *text;           /* of the new one */
    size_t n_bytes;
} folding;

static bg_status path_of(const folding *f, size_t i, char path[BG_PATH_BYTES], bg_err *err)
{
    return bg_path(path, err, "%sMANIFEST.d/%s", f->folder, f->list.file[i].name);
}

/* The text of the new MANIFEST: the old one and those of the writers, in the order of their last change, in which they
 * are then removed: those that a fold which was cut off has left are the latest. */
static bg_status gather(folding *f, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = BG_OK;
    for (size_t i = 0; i < f->list.n && st == BG_OK; i++)
        if ((st = path_of(f, i, path, err)) == BG_OK && stat(path, &f->list.file[i].about) != 0)
            st = BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    if (st == BG_OK)
        qsort(f->list.file, f->list.n, sizeof *f->list.file, by_written);
    FILE *out = st == BG_OK ? open_memstream(&f->text, &f->n_bytes) : NULL;
    if (out != NULL && (st = bg_path(path, err, "%sMANIFEST", f->folder)) == BG_OK)
        st = copy_text(out, path, &f->manifest, err);
    for (size_t i = 0; i < f->list.n && out != NULL && st == BG_OK; i++)
        if ((st = path_of(f, i, path, err)) == BG_OK)
            st = copy_text(out, path, &f->list.file[i].about, err);
    bool whole = out != NULL && ferror(out) == 0;
    if (out != NULL && fclose(out) != 0)
        whole = false;
    return st == BG_OK && !whole ? BG_FAIL(err, BG_ENOMEM, "out of memory to write \"%sMANIFEST\"", f->folder) : st;
}

static bool is_as_read(const char *path, const struct stat *then)
{
    struct stat now = { .st_ino = 0 };
    if (stat(path, &now) != 0 && errno != ENOENT)
        return false;
    return now.st_ino == then->st_ino && now.st_size == then->st_size && by_time(now.st_mtim, then->st_mtim) == 0;
}

/* Number 4 of the head of this file. */
static bg_status check_alone(const folding *f, const char *manifest, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bool alone = access(f->flag, F_OK) == 0 && is_as_read(manifest, &f->manifest);
    for (size_t i = 0; i < f->list.n && alone; i++)
        alone = f->list.file[i].about.st_ino != 0 && path_of(f, i, path, NULL) == BG_OK &&
                is_as_read(path, &f->list.file[i].about);
    return alone ? BG_OK : BG_FAIL(err, BG_ESTALE, "\"%s\" or its lines changed while they were folded", manifest);
}

static bg_status replace_manifest(const folding *f, bg_err *err)
{
    char manifest[BG_PATH_BYTES], temporary[BG_PATH_BYTES];
    bg_status st = bg_path(manifest, err, "%sMANIFEST", f->folder);
    if (st == BG_OK)
        st = bg_path(temporary, err, "%s.tmp-%s", manifest, self.name);
    if (st != BG_OK)
        return st;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    st = write_all(fd, f->text, f->n_bytes, manifest, err);
    if (close(fd) != 0 && st == BG_OK)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    if (st == BG_OK)
        st = check_alone(f, manifest, err);
    if (st == BG_OK && rename(temporary, manifest) != 0)
        st = BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", manifest, strerror(errno));
    if (st == BG_OK)
        return bg_sync_path(f->folder, manifest, O_DIRECTORY, err);
    unlink(temporary);
    return st;
}

/* The flag is up.  Nothing is done if another one folds, or if there is nothing to fold. */
static bg_status fold_flagged(folding *f, bg_err *err)
{
    char path[BG_PATH_BYTES];
    bg_status st = list_writers(f->folder, &f->list, err);
    if (st != BG_OK || !keep_at_rest(&f->list, bg_base_name(f->flag)) || f->list.n == 0)
        return st;
    st = gather(f, err);
    if (st == BG_OK)
        st = replace_manifest(f, err);
    for (size_t i = 0; i < f->list.n && st == BG_OK; i++)
        if (path_of(f, i, path, NULL) == BG_OK)
            unlink(path);
    return st;
}

static bg_status fold(const char *folder, bg_err *err)
{
    folding f = { .folder = folder };
    char writers[BG_PATH_BYTES];
    bg_status st = own_path(folder, fold_suffix, f.flag, err);
    if (st != BG_OK)
        return st;
    int fd = open(f.flag, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == ENOENT) /* MANIFEST.d has gone: another has folded all that was in it */
        return BG_OK;
    if (fd < 0)
        return BG_FAIL(err, BG_EIO, "cannot write \"%s\": %s", f.flag, strerror(errno));
    close(fd);
    st = fold_flagged(&f, err);
    unlink(f.flag);
    if (bg_path(writers, NULL, "%sMANIFEST.d", folder) == BG_OK)
        rmdir(writers);
    free(f.text);
    free(f.list.file);
    return st;
}

void bg_manifest_close(bool folds)
{
    char open_file[BG_PATH_BYTES], closed[BG_PATH_BYTES];
    bg_err why;
    take_part();
    for (size_t i = 0; i < self.n; i++) {
        if (own_path(self.folder[i], open_suffix, open_file, NULL) == BG_OK &&
            own_path(self.folder[i], "", closed, NULL) == BG_OK)
            rename(open_file, closed);
        if (folds && fold(self.folder[i], &why) != BG_OK)
            bg_log("the lines in \"%sMANIFEST.d\" stay there, where they count as well, for the next job to fold: %s",
                   self.folder[i], why.msg);
        free(self.folder[i]);
    }
    free(self.folder);
    memset(&self, 0, sizeof self);
}

/* ---- waiting for what is listed ---- */

enum { WAIT_S = 5, POLLS_PER_S = 20 };

/* Opening the folder makes an NFS client forget that a name was not in it. */
static void look_again(const char *folder)
{
    const struct timespec pause = { .tv_nsec = 1000000000 / POLLS_PER_S };
    nanosleep(&pause, NULL);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
}

bg_status bg_manifest_open_file(const char *path, int *fd, bg_err *err)
{
    char folder[BG_PATH_BYTES];
    bg_manifest_entry entry;
    bool listed = false;
    bg_status st = bg_open_file(path, fd, err);
    int cause = errno;
    /* as long as it is listed: another attempt may be removing the folder */
    for (int i = 0;
         i < WAIT_S * POLLS_PER_S && *fd < 0 && cause == ENOENT && bg_folder_of(path, folder, NULL) == BG_OK &&
         bg_manifest_lookup(path, &listed, &entry, NULL) == BG_OK && listed;
         i++) {
        look_again(folder);
        st = bg_open_file(path, fd, err);
        cause = errno;
    }
    return st == BG_OK || !listed
               ? st
               : BG_FAIL(err, BG_EIO, "cannot read \"%s\": %s, though its folder's MANIFEST lists it", path,
                         strerror(cause));
}
