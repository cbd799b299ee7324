/* version.h - which program this is; static storage. */
#ifndef BG_VERSION_H
#define BG_VERSION_H

const char *bg_version(void);      /* "0.1.0" */
const char *bg_git_revision(void); /* "" outside a git checkout */

#endif /* BG_VERSION_H */
