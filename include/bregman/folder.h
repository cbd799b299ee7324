/* folder.h - folders of files: made, synced, removed. */
#ifndef BG_FOLDER_H
#define BG_FOLDER_H

#include "bregman/status.h"

/* Make a folder and its parents; no error if it exists.  BG_EIO naming it, also if not writable. */
bg_status bg_make_folder(const char *path, bg_err *err) BG_MUST_CHECK;
/* Delete a folder of work files (one level: files, then the folder).  Missing is fine; so is one that another attempt
 * of the same job goes on writing into, which then stays to be removed by that. */
bg_status bg_remove_folder(const char *path, bg_err *err) BG_MUST_CHECK;
/* fsync a file, or a folder with flags O_DIRECTORY; errors name `shown`. */
bg_status bg_sync_path(const char *path, const char *shown, int flags, bg_err *err) BG_MUST_CHECK;

#endif /* BG_FOLDER_H */
