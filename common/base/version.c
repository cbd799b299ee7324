#include "bregman/version.h"

const char *bg_version(void) { return BG_VERSION; }
const char *bg_git_revision(void) { return BG_GIT_REVISION; }
